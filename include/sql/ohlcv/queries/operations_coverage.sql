-- Called by aggregator.web.operations.ohlcv. Returns a page of the symbols whose name contains %(search)s, with two
-- arrays that have one element for each UTC day of the range:
--   seen      base candles in the bars of the day; null before the first bar, and after the end of the built data
--   expected  base candles of the day, or of its part that is built
with symbols as (
    select
        asset.symbol,
        asset.base_timeframe,
        extract(epoch from base.size) as step,
        count(*) over () as total
    from ohlcv.assets as asset
    inner join ohlcv.timeframes as base on asset.base_timeframe = base.timeframe
    where %(search)s = '' or strpos(lower(asset.symbol), lower(%(search)s)) > 0
    order by asset.symbol
    limit %(limit)s offset %(offset)s
),

known as materialized (
    select
        symbols.*,
        coalesce(task.built_until, task.cursor) as built_until,
        (
            select min(bar.ts) from ohlcv.bars as bar
            where bar.symbol = symbols.symbol and bar.timeframe = '15m'
        ) as first
    from symbols
    left join ohlcv.tasks as task on symbols.symbol = task.symbol and task.timeframe = '15m'
),

whole as materialized (
    select bar.*
    from known
    cross join
        lateral (
            select
                stored.symbol,
                stored.ts,
                stored.candles,
                stored.expected_candles
            from ohlcv.bars as stored
            where
                stored.symbol = known.symbol
                and stored.timeframe = '1d'
                and stored.ts >= %(first_day)s::date::timestamp at time zone 'UTC'
                and stored.ts < %(until_day)s::date::timestamp at time zone 'UTC'
        ) as bar
),

days as (
    select
        known.*,
        day.starts_at,
        day.starts_at + interval '24 hours' <= known.built_until as is_over,
        (day.starts_at + interval '24 hours' > known.first and day.starts_at < known.built_until) is true as is_known
    from known
    cross join
        generate_series(
            %(first_day)s::date::timestamp at time zone 'UTC',
            (%(until_day)s::date - 1)::timestamp at time zone 'UTC',
            interval '24 hours'
        ) as day (starts_at)
)

select
    days.symbol,
    days.base_timeframe,
    days.total,
    array_agg(
        case when days.is_known then coalesce(whole.candles, part.candles, 0) end
        order by days.starts_at
    ) as seen,
    array_agg(
        coalesce(
            whole.expected_candles,
            round(
                case
                    when days.is_over or not days.is_known then 86400
                    else extract(epoch from days.built_until - days.starts_at)
                end / days.step
            )
        )::integer
        order by days.starts_at
    ) as expected
from days
left join whole on days.symbol = whole.symbol and days.starts_at = whole.ts
left join lateral (
    -- The 1d bar of the newest days may be missing yet, and a silent day has none.
    select sum(bar.candles) as candles
    from ohlcv.bars as bar
    where
        days.is_known
        and whole.symbol is null
        and bar.symbol = days.symbol
        and bar.timeframe = '15m'
        and bar.ts >= days.starts_at
        and bar.ts < days.starts_at + interval '24 hours'
) as part on true
group by days.symbol, days.base_timeframe, days.total
order by days.symbol
