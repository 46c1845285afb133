-- Called by aggregator.alerts.freshness. Up to when there are candles of any symbol that is aggregated: a feed goes on.
select
    max(newest_source) as newest,
    max(newest_source) as waiting_since
from ohlcv.frontier
where timeframe = '15m'
