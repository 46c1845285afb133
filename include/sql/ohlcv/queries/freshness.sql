-- Called by aggregator.alerts.freshness. Up to when the foremost symbol has bars of 15 minutes, and since when more
-- symbols than may lag have had a bar to build: that of the first symbol beyond that share, those that wait longest
-- first.
--
-- A symbol waits if one of its timeframes does: there is a candle or finer bar at its cursor or after it, in a window
-- that is over, and all that the window is made of is built. So a closed market does not wait, nor does a timeframe
-- that a finer one blocks. A window counts from 15 minutes before its end, so that one limit fits all timeframes. Tasks
-- that fail hard are left out: they have an alert of their own.
with task as (
    select
        task.symbol,
        task.timeframe,
        task.source_timeframe,
        task.size,
        source.is_base,
        task.cursor,
        coalesce(task.cursor, task.starts_at, '-infinity') as first,
        case when not source.is_base then coalesce(finer.built_until, '-infinity') end as built_until,
        task.hard_fails = 0
        and (
            task.status = 'idle'
            -- A run works on it; one that is lost has claimed it long ago.
            or (task.status = 'running' and task.claimed_at < %(late_before)s::timestamptz)
        ) as can_wait
    from ohlcv.tasks as task
    inner join ohlcv.assets as asset on task.symbol = asset.symbol
    inner join ohlcv.timeframes as source on task.source_timeframe = source.timeframe
    left join ohlcv.tasks as finer on task.symbol = finer.symbol and task.source_timeframe = finer.timeframe
    where
        task.enabled
        and (asset.active or (asset.test_active and %(env_name)s::text in ('DEV', 'TEST')))
),

late as (
    select
        task.symbol,
        task.timeframe,
        open_window.ends_at - interval '15 minutes' as since
    from task
    cross join
        lateral (
            (
                select candle.ts
                from ohlcv.candles as candle
                where
                    task.is_base
                    and candle.symbol = task.symbol
                    and candle.timeframe = task.source_timeframe
                    and candle.ts >= task.first
                    and candle.ts <= %(now)s::timestamptz
                order by candle.ts
                limit 1
            )
            union all
            (
                select bar.ts
                from ohlcv.bars as bar
                where
                    not task.is_base
                    and bar.symbol = task.symbol
                    and bar.timeframe = task.source_timeframe
                    and bar.ts >= task.first
                    and bar.ts <= %(now)s::timestamptz
                order by bar.ts
                limit 1
            )
        ) as source
    cross join
        lateral (
            values (date_bin(task.size, source.ts, timestamptz '2000-01-01 00:00+00') + task.size)
        ) as open_window (ends_at)
    where
        task.can_wait
        -- Known without its candles: most tasks end here.
        and task.first + task.size - interval '15 minutes' < %(late_before)s::timestamptz
        and open_window.ends_at - interval '15 minutes' < %(late_before)s::timestamptz
        and (task.built_until is null or open_window.ends_at <= task.built_until)
),

symbol_behind as (
    select
        first.*,
        row_number() over (order by first.since, first.symbol) as place
    from (
        select distinct on (late.symbol) late.*
        from late
        order by late.symbol, late.since, late.timeframe
    ) as first
),

reached as (
    select
        count(distinct task.symbol) as symbols,
        max(task.cursor) filter (where task.is_base and task.cursor <= %(now)s::timestamptz) as newest
    from task
)

select
    coalesce(reached.newest, min(symbol_behind.since)) as newest,
    min(symbol_behind.since)
    filter (where symbol_behind.place > floor(reached.symbols * %(may_lag)s::integer / 100.0)) as waiting_since,
    count(symbol_behind.symbol) as behind,
    reached.symbols,
    coalesce(
        array_agg(symbol_behind.symbol || ' ' || symbol_behind.timeframe order by symbol_behind.place)
        filter (where symbol_behind.place <= %(named_at_most)s::integer),
        '{}'
    ) as worst
from reached
left join symbol_behind on true
group by reached.symbols, reached.newest
