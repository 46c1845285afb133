-- Called by aggregator.ohlcv in a rebuild. Symbols that have tasks, of those given if any are.
select distinct symbol
from ohlcv.tasks
where %(symbols)s::text[] is null or symbol = any(%(symbols)s::text[])
order by symbol
