-- Called by aggregator.web.operations.ohlcv. Returns a page of the symbols whose name contains %(search)s.
select
    asset.symbol,
    asset.base_timeframe,
    asset.active,
    asset.mandatory,
    array(
        select task.timeframe
        from ohlcv.tasks as task
        where task.symbol = asset.symbol
        order by task.size
    ) as timeframes,
    count(*) over () as total
from ohlcv.assets as asset
where %(search)s = '' or strpos(lower(asset.symbol), lower(%(search)s)) > 0
order by asset.symbol
limit %(limit)s offset %(offset)s
