-- Called by aggregator.web.operations.ohlcv. Returns the bar of the window that is not over, made of its valid base
-- candles; no row without a candle.
with open_window as (
    select
        asset.symbol,
        asset.base_timeframe,
        date_bin(frame.size, now(), timestamptz '2000-01-01 00:00+00') as starts_at,
        extract(epoch from frame.size) / extract(epoch from base.size) as candles
    from ohlcv.assets as asset
    inner join ohlcv.timeframes as base on asset.base_timeframe = base.timeframe
    inner join ohlcv.timeframes as frame on frame.timeframe = %(timeframe)s
    where asset.symbol = %(symbol)s
)

select
    extract(epoch from open_window.starts_at)::bigint as time,
    (array_agg(candle.open order by candle.ts))[1] as open,
    max(candle.high) as high,
    min(candle.low) as low,
    (array_agg(candle.close order by candle.ts desc))[1] as close,
    sum(candle.volume) as volume,
    sum(candle.trades) as trades,
    count(*) as candles,
    open_window.candles::integer as expected_candles
from open_window
inner join ohlcv.checked_candles as candle
    on
        open_window.symbol = candle.symbol
        and open_window.base_timeframe = candle.timeframe
        and open_window.starts_at <= candle.ts
where candle.is_valid and candle.ts <= now()
group by open_window.starts_at, open_window.candles
