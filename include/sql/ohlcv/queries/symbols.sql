-- Called by aggregator.ohlcv.rebuild. Returns the symbols that have tasks, restricted to the given ones if there are
-- any.
select distinct symbol
from ohlcv.tasks
where %(symbols)s::text[] is null or symbol = any(%(symbols)s::text[])
order by symbol
