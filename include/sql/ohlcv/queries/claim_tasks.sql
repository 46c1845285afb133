-- Called by aggregator.ohlcv.rebuild. Returns the number of tasks that were claimed, and the number wanted. Disabled
-- tasks are not wanted. Another run processes the tasks that could not be claimed.
select
    ohlcv.claim_tasks(%(run_id)s, coalesce(array_agg(task.symbol), '{}'), coalesce(array_agg(task.timeframe), '{}'))
        as claimed,
    count(*) as wanted
from ohlcv.tasks as task
where
    task.symbol = any(%(symbols)s::text[])
    and task.timeframe = any(%(timeframes)s::text[])
    and task.enabled
    and task.status in ('idle', 'running')
