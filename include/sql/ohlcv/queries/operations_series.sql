-- Called by aggregator.web.operations.ohlcv. Returns one row about the bars of a symbol and a timeframe; none if the
-- symbol is unknown.
select
    asset.base_timeframe,
    extract(epoch from frame.size)::integer as size_seconds,
    (
        select min(bar.ts) from ohlcv.bars as bar
        where bar.symbol = asset.symbol and bar.timeframe = frame.timeframe
    ) as first,
    (
        select max(bar.ts) from ohlcv.bars as bar
        where bar.symbol = asset.symbol and bar.timeframe = frame.timeframe
    ) as last
from ohlcv.assets as asset
inner join ohlcv.timeframes as frame on frame.timeframe = %(timeframe)s and not frame.is_base
where asset.symbol = %(symbol)s
