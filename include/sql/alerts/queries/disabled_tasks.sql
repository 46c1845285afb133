-- Called by aggregator.alerts.watch. Returns the OHLCV tasks that permanent errors disabled, the last one first.
select
    symbol || ' ' || timeframe as task,
    last_attempt_at
from ohlcv.tasks
where status in ('disabled', 'hard_failed')
order by last_attempt_at desc, symbol asc, timeframe asc
