-- Called by aggregator.ohlcv.aggregate and aggregator.ohlcv.rebuild. Returns for each timeframe, finest first, the
-- symbols that the run has claimed in a shard.
select
    task.timeframe,
    array_agg(task.symbol order by task.symbol) as symbols
from ohlcv.tasks as task
where
    task.owner = %(run_id)s
    and task.status = 'running'
    and (%(first)s::text is null or task.symbol >= %(first)s::text)
    and (%(last)s::text is null or task.symbol <= %(last)s::text)
group by task.timeframe, task.size
order by task.size
