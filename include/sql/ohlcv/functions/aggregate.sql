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
--     built, reached                         what was built, and the new cursor watermark
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
set search_path = ''
set datestyle = 'ISO, MDY'
set timezone = 'UTC'
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
            ohlcv.watermark_horizon(
                task.size, p_as_of, task.delay, source.is_base, finer.built_until
            ) as horizon_watermark,
            start.first_window,
            greatest(task.cursor, start.first_window) as next_window
        from ohlcv.tasks as task
        inner join ohlcv.timeframes as source on task.source_timeframe = source.timeframe
        left join ohlcv.tasks as finer on task.symbol = finer.symbol and task.source_timeframe = finer.timeframe
        cross join lateral (
            select date_bin(task.size, task.starts_at, timestamptz '2000-01-01 00:00+00') as first_window
        ) as start
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
        select
            part.symbol,
            lower(part.windows) + (p_max_windows - part.before) * part.size as stops_at
        from (
            select
                counted.*,
                sum(counted.many) over (partition by counted.symbol order by counted.windows)::float8
                - counted.many as before
            from (
                select
                    merged.*,
                    (
                        extract(epoch from upper(merged.windows) - lower(merged.windows))
                        / extract(epoch from merged.size)
                    )::float8 as many
                from (
                    select
                        stale_range.symbol,
                        stale_range.size,
                        unnest(range_agg(tstzrange(stale_range.first, stale_range.last))) as windows
                    from stale_range
                    where stale_range.first < stale_range.last
                    group by stale_range.symbol, stale_range.size
                ) as merged
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
                        then date_bin(
                            claimed.size,
                            ohlcv.next_source_row(
                                claimed.symbol, claimed.source_timeframe, coalesce(claimed.next_window, '-infinity')
                            ),
                            timestamptz '2000-01-01 00:00+00'
                        )
                end as builds_from
        ) as edge
    ),

    -- Consecutive stale windows are one range: a rebuild of days reads its candles once.
    stale as (
        select
            symbol,
            source_timeframe,
            source_size,
            is_base,
            next_window,
            built_until_watermark,
            coalesce(range_agg(windows) filter (where empties), '{}') as changed,
            coalesce(range_agg(windows) filter (where not empties), '{}') as requested
        from taken
        cross join lateral (select tstzrange(taken.first, least(taken.last, taken.stops_at)) as windows) as part
        where taken.first < taken.last
        group by symbol, source_timeframe, source_size, is_base, next_window, built_until_watermark
    ),

    wanted as (
        select
            symbol,
            source_timeframe,
            source_size,
            is_base,
            next_window,
            built_until_watermark,
            lower(part.windows) as starts_at,
            upper(part.windows) as ends_at,
            true as is_stale,
            part.empties
        from stale
        cross join lateral (
            select unnest(stale.changed) as windows, true as empties
            union all
            select unnest(stale.requested - stale.changed), false
        ) as part
        union all
        select
            symbol, source_timeframe, source_size, is_base, next_window, built_until_watermark, builds_from,
            builds_until, false, false
        from planned
        where builds_from < builds_until
    ),

    ranges as (
        select array_agg(
            row(
                wanted.symbol,
                coalesce(in_use.timeframe, wanted.source_timeframe),
                greatest(wanted.starts_at, in_use.starts_at),
                least(wanted.ends_at, in_use.ends_at),
                wanted.is_stale,
                coalesce(in_use.size, wanted.source_size),
                wanted.next_window,
                wanted.built_until_watermark,
                wanted.empties,
                in_use.fallback_timeframe
            )::ohlcv.source_range
        ) as ranges
        from wanted
        left join lateral (
            select used.*
            from ohlcv.base_timeframes(wanted.symbol, wanted.source_timeframe) as used
            where base_changed and wanted.is_base
            -- Prevents a call of the function for symbols that do not need it.
            offset 0
        ) as in_use on wanted.starts_at < in_use.ends_at and wanted.ends_at > in_use.starts_at
    ),

    built as materialized (
        select bars.*
        from ranges
        cross join lateral ohlcv.build_bars(p_timeframe, ranges.ranges, p_derivation_version) as bars
        where ranges.ranges is not null
    ),

    reached as (
        select
            planned.*,
            ohlcv.watermark_cursor(
                planned.size,
                planned.cursor_watermark,
                planned.next_window,
                planned.horizon_watermark,
                planned.builds_from,
                planned.builds_until,
                built.bad_window,
                built.newest_new_bar,
                ohlcv.next_source_row(planned.symbol, planned.source_timeframe, planned.builds_until) is not null
            ) as new_cursor_watermark,
            coalesce(built.new_bars, 0) as new_bars,
            coalesce(built.poor_bars, 0) as poor_bars,
            coalesce(built.inserted, 0) as inserted,
            coalesce(built.updated, 0) as updated,
            coalesce(built.unchanged, 0) as unchanged,
            coalesce(built.deleted, 0) as deleted,
            built.bad_window
        from planned
        left join built on planned.symbol = built.symbol collate "C"
    )

    select
        reached.symbol::text,
        p_timeframe,
        reached.new_cursor_watermark,
        ohlcv.watermark_built_until(
            reached.new_cursor_watermark, reached.horizon_watermark, reached.builds_until, reached.bad_window
        ),
        reached.inserted + reached.updated + reached.unchanged,
        reached.poor_bars,
        -- Skipped: the cursor passed these windows, and they have no new bar.
        coalesce(
            case
                when reached.builds_from is not null
                    then
                        extract(
                            epoch from
                            reached.new_cursor_watermark - coalesce(reached.next_window, reached.builds_from)
                        )
                        / extract(epoch from reached.size) - reached.new_bars
            end,
            0
        )::integer,
        reached.inserted,
        reached.updated,
        reached.unchanged,
        reached.deleted,
        reached.bad_window,
        case when reached.bad_window is null then 'success' else 'hard' end,
        case
            when reached.bad_window is not null
                then format(
                    'The window %s UTC has candles that cannot be in a bar: prices must be finite and above 0, open '
                    'and close between low and high, volume known and not negative. This window and later ones '
                    'were not built. Correct or delete these candles. If the task is disabled, reset it.',
                    to_char(reached.bad_window at time zone 'UTC', 'YYYY-MM-DD HH24:MI')
                )
        end,
        reached.bad_window is null
        and (
            coalesce(
                reached.new_cursor_watermark = reached.builds_until
                and reached.builds_until < reached.horizon_watermark,
                false
            )
            or coalesce(reached.finer_has_more, false)
            or reached.symbol in (select limit_reached.symbol from limit_reached)
        )
    from reached;
end
$$;

comment on function ohlcv.aggregate(text, text, text[], timestamptz, integer, integer) is
'Builds the windows that ended before p_as_of (null: none) and the stale windows of the claimed tasks of one '
'timeframe; returns one row per task for ohlcv.finish_tasks';
revoke all on function ohlcv.aggregate(text, text, text[], timestamptz, integer, integer) from public;
