-- Called by aggregator.ohlcv. A shard of the symbols that a run has claimed, by timeframe, the finest first.
select
    task.timeframe,
    array_agg(task.symbol order by task.symbol) as symbols
from ohlcv.tasks as task
where
    task.owner = %(run_id)s
    and task.status = 'running'
    and mod(hashtext(task.symbol) & 2147483647, %(shards)s) = %(shard)s
group by task.timeframe, task.size
order by task.size
