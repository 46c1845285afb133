-- Called by aggregator.ohlcv. Divides the symbols that a run has claimed evenly, in order: the first and the last one
-- of each shard.
with claimed as (
    select distinct task.symbol
    from ohlcv.tasks as task
    where task.owner = %(run_id)s and task.status = 'running'
),

divided as (
    select
        claimed.symbol,
        ntile(%(shards)s) over (order by claimed.symbol) as shard
    from claimed
)

select
    min(divided.symbol) as first,
    max(divided.symbol) as last
from divided
group by divided.shard
order by divided.shard
