-- Called by aggregator.ohlcv in a rebuild. Claims the tasks of some symbols; answers with how many, and how many there
-- are that are not disabled: somebody else works on the rest.
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
