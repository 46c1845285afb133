-- Called by aggregator.alerts.freshness. Returns one row about the bars of all active symbols.
--   newest         up to when the foremost symbol has bars of 15 minutes
--   waiting_since  start of the wait of the first symbol beyond %(max_behind_percent)s, the longest waits first; null
--                  while fewer symbols are behind
--   behind         symbols of which a bar could have been built at %(late_before)s and was not
--   symbols        symbols with a task
--   worst          the symbols and timeframes that wait longest
--
-- A task waits if three conditions hold: its source has a candle or finer bar at or after its cursor; the window of
-- that row is over; the finer bars of the window are complete. So neither a closed market waits, nor a timeframe that a
-- finer one blocks. The wait starts 15 minutes before the end of the window, so one limit fits all timeframes. Tasks
-- with permanent errors are left out, because they have an alert of their own.
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
            -- Claimed by a run. If the claim is old, that run is lost.
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
    cross join lateral ohlcv.next_source_row(task.symbol, task.source_timeframe, task.first) as source (ts)
    cross join lateral (values (ohlcv.align(source.ts, task.size) + task.size)) as open_window (ends_at)
    where
        task.can_wait
        and source.ts <= %(now)s::timestamptz
        -- Needs no candle, and excludes most tasks.
        and task.first + task.size - interval '15 minutes' < %(late_before)s::timestamptz
        and open_window.ends_at - interval '15 minutes' < %(late_before)s::timestamptz
        and (task.built_until is null or open_window.ends_at <= task.built_until)
),

symbol_behind as (
    select
        first.*,
        row_number() over (order by first.since, first.symbol) as rank
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
    filter (where symbol_behind.rank > floor(reached.symbols * %(max_behind_percent)s::integer / 100.0))
        as waiting_since,
    count(symbol_behind.symbol) as behind,
    reached.symbols,
    coalesce(
        array_agg(symbol_behind.symbol || ' ' || symbol_behind.timeframe order by symbol_behind.rank)
        filter (where symbol_behind.rank <= %(max_names)s::integer),
        '{}'
    ) as worst
from reached
left join symbol_behind on true
group by reached.symbols, reached.newest
