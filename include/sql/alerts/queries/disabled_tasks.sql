-- Called by aggregator.alerts.watch. The OHLCV tasks that were disabled after hard failures.
select
    symbol || ' ' || timeframe as task,
    last_attempt_at
from ohlcv.tasks
where status in ('disabled', 'hard_failed')
order by last_attempt_at desc, symbol asc, timeframe asc
