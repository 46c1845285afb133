-- Read by ohlcv.bars_from_candles and ohlcv.bars_from_mixed_candles. A view, which PostgreSQL expands in the query that
-- reads it: a function in its place would return every candle through a tuplestore.
--
-- "create or replace view" can add columns at the end. A migration has to drop the view before it removes a column, or
-- changes a column of ohlcv.candles.
--
-- price_volume_micros: a cast of double precision to numeric prints and parses 15 digits, which takes longer than the
-- rest of the aggregation of a candle. With at most six decimals, a whole number of millionths is the same number.
create or replace view ohlcv.checked_candles as
select
    symbol,
    timeframe,
    ts,
    open,
    high,
    low,
    close,
    volume,
    case
        when
            high + low + close between 0.001 and 1e9
            and abs((high + low + close) * 1e6 - ((high + low + close) * 1e6)::bigint)
            < (high + low + close) * 4e-10
            then ((high + low + close) * 1e6)::bigint::numeric
        else (high + low + close)::numeric * 1000000
    end * volume as price_volume_micros,
    trades,
    (
        low > 0 and low <= open and low <= close and open <= high and close <= high
        and high < 'Infinity' and volume >= 0 and volume < 'Infinity' and coalesce(trades, 0) >= 0
    ) is true as is_valid
from ohlcv.candles;

comment on view ohlcv.checked_candles is 'Candles with the values that bars are computed from';
comment on column ohlcv.checked_candles.price_volume_micros is '(high + low + close) × volume, in millionths';
comment on column ohlcv.checked_candles.is_valid is
'False if the candle cannot be in a bar: prices not finite, not above 0, or open or close outside low to high; '
'volume unknown, negative or infinite; trades negative';
