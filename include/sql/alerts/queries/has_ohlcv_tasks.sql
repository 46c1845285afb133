-- Called by aggregator.alerts.watch. Returns whether the database has the table of OHLCV tasks.
select to_regclass('ohlcv.tasks') is not null as there
