-- Called by aggregator.alerts.freshness. Up to when the foremost symbol has bars of 15 minutes, and whether candles
-- wait behind that. Markets that are closed have none; symbols that stay behind are told of as disabled tasks.
select
    max(cursor) as newest,
    case when max(newest_source) >= max(cursor) then max(cursor) end as waiting_since
from ohlcv.frontier
where timeframe = '15m'
