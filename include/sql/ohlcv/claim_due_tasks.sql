-- Called by aggregator.ohlcv. Claims what is due for a run.
select
    ohlcv.claim_tasks(
        %(run_id)s,
        coalesce(array_agg(due.symbol), '{}'),
        coalesce(array_agg(due.timeframe), '{}')
    ) as claimed
from ohlcv.agg_get_due_tasks(%(env_name)s, %(as_of)s, %(max_tasks)s) as due
