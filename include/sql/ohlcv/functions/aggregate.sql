-- Called by ohlcv.catchup_aggregation_range for one task, and by include/sql/ohlcv/queries/aggregate.sql for many.
-- Builds the due windows of the tasks of one timeframe that an owner has claimed. It changes no task: its result goes
-- to ohlcv.finish_tasks.
--
-- Three watermarks of a task control what is built. Each has a function with its rules:
--
--     cursor         windows that start before it are built          ohlcv.watermark_cursor
--     horizon        windows that end after it cannot be built yet   ohlcv.watermark_horizon
--     built_until    coarser bars may use the bars before it         ohlcv.watermark_built_until
--
-- Steps:
--
--     claimed                                the tasks with their watermarks
--     stale_range, limit_reached             stale windows, and where p_max_windows of them are exceeded
--     taken, left_over                       stale windows taken for this build, and those left for the next one
--     planned                                new windows, between cursor and horizon
--     wanted, ranges                         stale and new windows as ranges of source rows for ohlcv.build_bars
--     built                                  what was built
create or replace function ohlcv.aggregate(
    p_owner text,
    p_timeframe text,
    p_symbols text[],
    p_as_of timestamptz,
    p_max_windows integer,
    p_derivation_version integer
)
returns setof ohlcv.task_result
language plpgsql
volatile
set jit = off
-- One plan for all timeframes. A plan for the given symbols would read the statistics of each symbol.
set plan_cache_mode = force_generic_plan
as $$
declare
    held text[];
    base_changed boolean;
begin
    -- Held until the transaction ends: no other run takes over a lock, however old, while this one builds.
    select coalesce(array_agg(task.symbol), '{}')
    into held
    from (
        select symbol
        from ohlcv.tasks
        where symbol = any(p_symbols) and timeframe = p_timeframe and owner = p_owner and status = 'running'
        order by symbol
        for no key update
    ) as task;
    base_changed := exists (
        select from ohlcv.former_base_timeframes as former where former.symbol = any(held)
    );

    return query
    with claimed as materialized (
        select
            task.symbol,
            task.source_timeframe,
            task.size,
            source.size as source_size,
            source.is_base,
            finer.owner is not distinct from p_owner and finer.status = 'running' as finer_has_more,
            task.cursor as cursor_watermark,
            task.built_until as built_until_watermark,
            ohlcv.watermark_horizon(task.size, p_as_of, task.delay, source.is_base, finer.built_until)
                as horizon_watermark,
            start.first_window,
            greatest(task.cursor, start.first_window) as next_window
        from ohlcv.tasks as task
        inner join ohlcv.timeframes as source on task.source_timeframe = source.timeframe
        left join ohlcv.tasks as finer on task.symbol = finer.symbol and task.source_timeframe = finer.timeframe
        cross join lateral (select ohlcv.align(task.starts_at, task.size) as first_window) as start
        where task.symbol = any(held) and task.timeframe = p_timeframe
    ),

    -- Only windows between the task's start and its cursor: later ones are built as new windows with these candles, and
    -- there are no bars before the start.
    stale_range as (
        select
            claimed.*,
            stale.ends_at,
            stale.empties,
            stale.ctid as row_id,
            greatest(stale.window_start, claimed.first_window) as first,
            case
                when claimed.cursor_watermark is not null then least(stale.ends_at, claimed.next_window)
            end as last
        from claimed
        inner join ohlcv.stale_windows as stale on claimed.symbol = stale.symbol and stale.timeframe = p_timeframe
    ),

    -- A row can cover many windows, and several rows can cover the same window: it counts once.
    limit_reached as (
        select part.symbol, lower(part.windows) + (p_max_windows - part.before) * part.size as stops_at
        from (
            select
                merged.*,
                counted.many,
                (sum(counted.many) over (partition by merged.symbol order by merged.windows) - counted.many)::float8
                    as before
            from (
                select symbol, size, unnest(range_agg(tstzrange(first, last))) as windows
                from stale_range
                where first < last
                group by symbol, size
            ) as merged
            cross join lateral (
                select extract(epoch from upper(merged.windows) - lower(merged.windows))
                    / extract(epoch from merged.size) as many
            ) as counted
        ) as part
        where part.before <= p_max_windows and part.before + part.many > p_max_windows
    ),

    taken as (
        delete from ohlcv.stale_windows as stale
        using stale_range
        left join limit_reached on stale_range.symbol = limit_reached.symbol
        where
            stale.ctid = stale_range.row_id
            and (
                (stale_range.first < stale_range.last) is not true
                or limit_reached.stops_at is null
                or stale_range.first < limit_reached.stops_at
            )
        returning stale_range.*, limit_reached.stops_at
    ),

    left_over as (
        insert into ohlcv.stale_windows (symbol, timeframe, window_start, ends_at, empties)
        select taken.symbol, p_timeframe, taken.stops_at, taken.ends_at, taken.empties
        from taken
        where taken.first < taken.last and taken.stops_at < taken.last
    ),

    planned as materialized (
        select
            claimed.*,
            edge.builds_from,
            case
                when edge.builds_from is not null
                    then least(edge.builds_from + p_max_windows * claimed.size, claimed.horizon_watermark)
            end as builds_until
        from claimed
        cross join lateral (
            select
                case
                    when claimed.horizon_watermark <= claimed.next_window then null
                    -- All windows fit in this build: a search for the first source row would save nothing.
                    when
                        extract(epoch from claimed.horizon_watermark - claimed.next_window)
                        <= p_max_windows * extract(epoch from claimed.size)
                        then claimed.next_window
                    when claimed.horizon_watermark is not null
                        then ohlcv.align(
                            ohlcv.next_source_row(
                                claimed.symbol, claimed.source_timeframe, coalesce(claimed.next_window, '-infinity')
                            ),
                            claimed.size
                        )
                end as builds_from
        ) as edge
    ),

    -- Consecutive stale windows are one range: a rebuild of days reads its candles once.
    stale as (
        select
            taken.symbol,
            coalesce(range_agg(part.windows) filter (where taken.empties), '{}') as changed,
            coalesce(range_agg(part.windows) filter (where not taken.empties), '{}') as requested
        from taken
        cross join lateral (select tstzrange(taken.first, least(taken.last, taken.stops_at)) as windows) as part
        where taken.first < taken.last
        group by taken.symbol
    ),

    wanted as (
        select symbol, lower(windows) as starts_at, upper(windows) as ends_at, true as is_stale, empties
        from stale
        cross join lateral (
            select unnest(stale.changed) as windows, true as empties
            union all
            select unnest(stale.requested - stale.changed), false
        ) as part
        union all
        select symbol, builds_from, builds_until, false, false
        from planned
        where builds_from < builds_until
    ),

    ranges as (
        select array_agg(
            row(
                claimed.symbol,
                coalesce(in_use.timeframe, claimed.source_timeframe),
                greatest(wanted.starts_at, in_use.starts_at),
                least(wanted.ends_at, in_use.ends_at),
                wanted.is_stale,
                coalesce(in_use.size, claimed.source_size),
                claimed.next_window,
                claimed.built_until_watermark,
                wanted.empties,
                in_use.fallback_timeframe
            )::ohlcv.source_range
        ) as ranges
        from wanted
        inner join claimed on wanted.symbol = claimed.symbol
        left join lateral (
            select used.*
            from ohlcv.base_timeframes(claimed.symbol, claimed.source_timeframe) as used
            where base_changed and claimed.is_base
            -- Prevents a call of the function for symbols that do not need it.
            offset 0
        ) as in_use on wanted.starts_at < in_use.ends_at and wanted.ends_at > in_use.starts_at
    ),

    built as materialized (
        select bars.*
        from ranges
        cross join lateral ohlcv.build_bars(p_timeframe, ranges.ranges, p_derivation_version) as bars
        where ranges.ranges is not null
    )

    select
        planned.symbol::text,
        p_timeframe,
        reached.new_cursor,
        ohlcv.watermark_built_until(
            reached.new_cursor, planned.horizon_watermark, planned.builds_until, built.bad_window
        ),
        coalesce(built.inserted + built.updated + built.unchanged, 0),
        coalesce(built.poor_bars, 0),
        -- Skipped: the cursor passed these windows, and they have no new bar.
        case
            when planned.builds_from is null or reached.new_cursor is null then 0
            else extract(epoch from reached.new_cursor - coalesce(planned.next_window, planned.builds_from))
                / extract(epoch from planned.size) - coalesce(built.new_bars, 0)
        end::integer,
        coalesce(built.inserted, 0),
        coalesce(built.updated, 0),
        coalesce(built.unchanged, 0),
        coalesce(built.deleted, 0),
        built.bad_window,
        case when built.bad_window is null then 'success' else 'hard' end,
        case
            when built.bad_window is not null
                then format(
                    'The window %s UTC has candles that cannot be in a bar: prices must be finite and above 0, open '
                    'and close between low and high, volume known and not negative. This window and later ones '
                    'were not built. Correct or delete these candles. If the task is disabled, reset it.',
                    to_char(built.bad_window at time zone 'UTC', 'YYYY-MM-DD HH24:MI')
                )
        end,
        built.bad_window is null
        and (
            coalesce(
                reached.new_cursor = planned.builds_until and planned.builds_until < planned.horizon_watermark, false
            )
            or coalesce(planned.finer_has_more, false)
            or planned.symbol in (select limit_reached.symbol from limit_reached)
        )
    from planned
    left join built on planned.symbol = built.symbol collate "C"
    cross join lateral (
        select ohlcv.watermark_cursor(
            planned.size,
            planned.cursor_watermark,
            planned.next_window,
            planned.horizon_watermark,
            planned.builds_from,
            planned.builds_until,
            built.bad_window,
            built.newest_new_bar,
            ohlcv.next_source_row(planned.symbol, planned.source_timeframe, planned.builds_until) is not null
        ) as new_cursor
        -- Evaluated once, although it is used several times.
        offset 0
    ) as reached;
end
$$;

comment on function ohlcv.aggregate is
'Builds the windows that ended before p_as_of (null: none) and the stale windows of the claimed tasks of one '
'timeframe; returns one row per task for ohlcv.finish_tasks';
