-- Called by aggregator.ohlcv reset. Answers with the tasks that are idle again, and what they were.
select
    symbol,
    timeframe,
    was
from ohlcv.reset_tasks(%(symbols)s::text[], %(timeframes)s::text[])
order by symbol, timeframe
