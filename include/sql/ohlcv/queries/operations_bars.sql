-- Called by aggregator.web.operations.ohlcv. Returns the bars of a symbol and a timeframe in a range, in order.
select
    extract(epoch from ts)::bigint as time,
    open,
    high,
    low,
    close,
    volume,
    vwap,
    trades,
    quality,
    candles,
    expected_candles
from ohlcv.bars
where symbol = %(symbol)s and timeframe = %(timeframe)s and ts >= %(start)s and ts < %(end)s
order by ts
