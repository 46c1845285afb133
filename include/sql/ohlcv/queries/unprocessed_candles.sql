-- Called by aggregator.ohlcv.cli. Returns groups of candles that no task will process, latest first, and the number of
-- groups.
select
    symbol,
    timeframe,
    first_ts,
    last_ts,
    reason,
    count(*) over () as kinds
from ohlcv.unprocessed_candles(%(env_name)s::text)
where %(symbols)s::text[] is null or symbol = any(%(symbols)s::text[])
order by last_ts desc, symbol asc, timeframe asc
limit %(named_at_most)s::integer
