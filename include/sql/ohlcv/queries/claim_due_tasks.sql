-- Called by aggregator.ohlcv.plan. Returns the number of tasks that were claimed, and the number that are due.
select
    ohlcv.claim_tasks(
        %(run_id)s,
        coalesce(array_agg(due.symbol) filter (where due.position <= %(max_tasks_per_run)s), '{}'),
        coalesce(array_agg(due.timeframe) filter (where due.position <= %(max_tasks_per_run)s), '{}')
    ) as claimed,
    count(*) as due
from
    ohlcv.agg_get_due_tasks(%(env_name)s, %(as_of)s, null) with ordinality
        as due (symbol, timeframe, source_timeframe, cursor, mandatory, priority, next_run_at, position)
