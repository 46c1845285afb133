-- Called by aggregator.alerts.watch. Whether the database has OHLCV tasks.
select to_regclass('ohlcv.tasks') is not null as there
