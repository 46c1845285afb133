-- Called by aggregator.alerts.freshness. Since when more symbols than may lag have had no candle: the newest candle of
-- the first symbol beyond that share, the most silent ones first. Candles dated in the future count for nothing; a
-- symbol that never had one is not counted, because nobody knows since when it should.
with feed as (
    select
        asset.symbol,
        coalesce(recent.ts, older.ts) as newest
    from ohlcv.assets as asset
    left join lateral (
        select candle.ts
        from ohlcv.candles as candle
        where
            candle.symbol = asset.symbol
            and candle.timeframe = asset.base_timeframe
            and candle.ts >= %(late_before)s::timestamptz
            and candle.ts <= %(now)s::timestamptz
        order by candle.ts desc
        limit 1
    ) as recent on true
    left join lateral (
        -- Months of candles, which only silent symbols need.
        select candle.ts
        from ohlcv.candles as candle
        where
            recent.ts is null
            and candle.symbol = asset.symbol
            and candle.timeframe = asset.base_timeframe
            and candle.ts < %(late_before)s::timestamptz
        order by candle.ts desc
        limit 1
    ) as older on true
    where asset.active or (asset.test_active and %(env_name)s::text in ('DEV', 'TEST'))
),

ranked as (
    select
        symbol,
        newest,
        newest < %(late_before)s::timestamptz as is_behind,
        row_number() over (order by newest, symbol) as place,
        count(*) over () as symbols
    from feed
    where newest is not null
)

select
    max(newest) as newest,
    min(newest) filter (
        where is_behind and place > floor(symbols * %(may_lag)s::integer / 100.0)
    ) as waiting_since,
    count(*) filter (where is_behind) as behind,
    count(*) as symbols,
    coalesce(
        array_agg(symbol order by place) filter (where is_behind and place <= %(named_at_most)s::integer), '{}'
    ) as worst
from ranked
