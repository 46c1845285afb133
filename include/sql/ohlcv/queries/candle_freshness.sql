-- Called by aggregator.alerts.freshness. Returns one row about the feeds of all active symbols.
--   newest         newest candle of all symbols
--   waiting_since  newest candle of the first symbol beyond %(max_behind_percent)s, the most silent symbols first;
--                  null while fewer symbols are behind
--   behind         symbols without a candle since %(late_before)s
--   symbols        symbols that ever had a candle: for the others, the start of a silence is unknown
--   worst          the most silent symbols
-- Candles dated after %(now)s do not count.
with base_timeframe as (
    select
        symbol,
        base_timeframe as timeframe
    from ohlcv.assets
    union distinct
    -- A changed base timeframe reaches the task with the next run.
    select
        symbol,
        source_timeframe as timeframe
    from ohlcv.tasks
    where timeframe = '15m'
    union distinct
    select
        symbol,
        timeframe
    from ohlcv.former_base_timeframes
),

feed as (
    select
        asset.symbol,
        max(coalesce(recent.ts, older.ts)) as newest
    from ohlcv.assets as asset
    inner join base_timeframe on asset.symbol = base_timeframe.symbol
    left join lateral (
        select candle.ts
        from ohlcv.candles as candle
        where
            candle.symbol = base_timeframe.symbol
            and candle.timeframe = base_timeframe.timeframe
            and candle.ts >= %(late_before)s::timestamptz
            and candle.ts <= %(now)s::timestamptz
        order by candle.ts desc
        limit 1
    ) as recent on true
    left join lateral (
        -- Only silent symbols need these months of candles.
        select candle.ts
        from ohlcv.candles as candle
        where
            recent.ts is null
            and candle.symbol = base_timeframe.symbol
            and candle.timeframe = base_timeframe.timeframe
            and candle.ts < %(late_before)s::timestamptz
        order by candle.ts desc
        limit 1
    ) as older on true
    where asset.active or (asset.test_active and %(env_name)s::text in ('DEV', 'TEST'))
    group by asset.symbol
),

ranked as (
    select
        symbol,
        newest,
        newest < %(late_before)s::timestamptz as is_behind,
        row_number() over (order by newest, symbol) as rank,
        count(*) over () as symbols
    from feed
    where newest is not null
)

select
    max(newest) as newest,
    min(newest) filter (
        where is_behind and rank > floor(symbols * %(max_behind_percent)s::integer / 100.0)
    ) as waiting_since,
    count(*) filter (where is_behind) as behind,
    count(*) as symbols,
    coalesce(
        array_agg(symbol order by rank) filter (where is_behind and rank <= %(max_names)s::integer), '{}'
    ) as worst
from ranked
