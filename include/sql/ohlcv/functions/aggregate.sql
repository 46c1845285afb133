-- Called by ohlcv.catchup_aggregation_range for one task and by include/sql/ohlcv/queries/aggregate.sql for many:
-- builds what their owner's tasks of one timeframe have to build, and changes no task. What it finds goes to
-- ohlcv.finish_tasks.
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
-- One plan for all timeframes: one for the very symbols looks up the statistics of every one of them.
set plan_cache_mode = force_generic_plan
as $$
declare
    held text[];
    base_changed boolean;
begin
    -- To the end of the transaction: a lock that is old by then is not taken over under a worker that still works.
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
            task.built_until,
            finer.owner is not distinct from p_owner and finer.status = 'running' as finer_has_more,
            task.cursor as stored_cursor,
            edge.begins_at,
            greatest(task.cursor, edge.begins_at) as cursor,
            case
                when p_as_of is not null
                    then least(
                        date_bin(task.size, p_as_of - task.delay, timestamptz '2000-01-01 00:00+00'),
                        case
                            when not source.is_base
                                then date_bin(
                                    task.size,
                                    coalesce(finer.built_until, '-infinity'),
                                    timestamptz '2000-01-01 00:00+00'
                                )
                        end
                    )
            end as horizon
        from ohlcv.tasks as task
        inner join ohlcv.timeframes as source on task.source_timeframe = source.timeframe
        left join ohlcv.tasks as finer on task.symbol = finer.symbol and task.source_timeframe = finer.timeframe
        cross join lateral (
            select date_bin(task.size, task.starts_at, timestamptz '2000-01-01 00:00+00') as begins_at
        ) as edge
        where task.symbol = any(held) and task.timeframe = p_timeframe
    ),

    -- What is not built yet is built anyway, and from here on with these candles; before its start, a task has no bars.
    noted as (
        select
            claimed.*,
            stale.ends_at,
            stale.empties,
            stale.ctid as place,
            greatest(stale.window_start, claimed.begins_at) as first,
            case when claimed.stored_cursor is not null then least(stale.ends_at, claimed.cursor) end as last
        from claimed
        inner join ohlcv.stale_windows as stale on claimed.symbol = stale.symbol and stale.timeframe = p_timeframe
    ),

    -- Where the limit is reached: a row may be many windows, and a window may be in many rows.
    full_at as (
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
                    select noted.symbol, noted.size, unnest(range_agg(tstzrange(noted.first, noted.last))) as windows
                    from noted
                    where noted.first < noted.last
                    group by noted.symbol, noted.size
                ) as merged
            ) as counted
        ) as part
        where part.before <= p_max_windows and part.before + part.many > p_max_windows
    ),

    taken as (
        delete from ohlcv.stale_windows as stale
        using noted
        left join full_at on noted.symbol = full_at.symbol
        where
            stale.ctid = noted.place
            and (
                (noted.first < noted.last) is not true
                or full_at.stops_at is null
                or noted.first < full_at.stops_at
            )
        returning noted.*, full_at.stops_at
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
            edge.starts_at,
            case
                when edge.starts_at is not null
                    then least(edge.starts_at + p_max_windows * claimed.size, claimed.horizon)
            end as ends_at
        from claimed
        cross join lateral (
            select
                case
                    when claimed.horizon <= claimed.cursor then null
                    -- All of it is read now, so windows without a source row need no search for the first one.
                    when
                        extract(epoch from claimed.horizon - claimed.cursor)
                        <= p_max_windows * extract(epoch from claimed.size)
                        then claimed.cursor
                    when claimed.horizon is not null
                        then date_bin(
                            claimed.size,
                            ohlcv.next_source_row(
                                claimed.symbol, claimed.source_timeframe, coalesce(claimed.cursor, '-infinity')
                            ),
                            timestamptz '2000-01-01 00:00+00'
                        )
                end as starts_at
        ) as edge
    ),

    -- Windows that follow one another are one range: a rebuild of days reads its candles once.
    stale as (
        select
            symbol,
            source_timeframe,
            source_size,
            is_base,
            cursor,
            built_until,
            coalesce(range_agg(windows) filter (where empties), '{}') as changed,
            coalesce(range_agg(windows) filter (where not empties), '{}') as asked_for
        from taken
        cross join lateral (select tstzrange(taken.first, least(taken.last, taken.stops_at)) as windows) as part
        where taken.first < taken.last
        group by symbol, source_timeframe, source_size, is_base, cursor, built_until
    ),

    wanted as (
        select
            symbol,
            source_timeframe,
            source_size,
            is_base,
            cursor,
            built_until,
            lower(part.windows) as starts_at,
            upper(part.windows) as ends_at,
            true as is_stale,
            part.empties
        from stale
        cross join lateral (
            select unnest(stale.changed) as windows, true as empties
            union all
            select unnest(stale.asked_for - stale.changed), false
        ) as part
        union all
        select symbol, source_timeframe, source_size, is_base, cursor, built_until, starts_at, ends_at, false, false
        from planned
        where starts_at < ends_at
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
                wanted.cursor,
                wanted.built_until,
                wanted.empties,
                in_use.fallback_timeframe
            )::ohlcv.source_range
        ) as ranges
        from wanted
        left join lateral (
            select used.*
            from ohlcv.base_timeframes(wanted.symbol, wanted.source_timeframe) as used
            where base_changed and wanted.is_base
            -- A subquery of its own, which calls the function for nobody else.
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
            case
                when built.bad_window is not null then greatest(planned.stored_cursor, built.bad_window)
                -- Nothing is over yet, or nothing was asked: a start in the future is no cursor.
                when planned.starts_at is null then planned.stored_cursor
                when planned.starts_at >= planned.ends_at and planned.cursor is null then null
                when planned.starts_at >= planned.ends_at then greatest(planned.cursor, planned.horizon)
                when
                    built.newest_new_bar = planned.ends_at - planned.size
                    or ohlcv.next_source_row(planned.symbol, planned.source_timeframe, planned.ends_at) is not null
                    then planned.ends_at
                else coalesce(built.newest_new_bar + planned.size, planned.cursor)
            end as reached_cursor,
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
        reached.reached_cursor,
        -- Behind the newest data, empty windows are over for the coarser timeframes, and not for this one.
        case
            when reached.bad_window is null and coalesce(reached.ends_at = reached.horizon, true) then reached.horizon
            else reached.reached_cursor
        end,
        reached.inserted + reached.updated + reached.unchanged,
        reached.poor_bars,
        coalesce(
            case
                when reached.starts_at is not null
                    then extract(epoch from reached.reached_cursor - coalesce(reached.cursor, reached.starts_at))
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
                    'The window %s UTC has candles that make no bar: prices have to be finite and above 0, open and '
                    'close between low and high, volume known and not negative. Nothing from there on was built. '
                    'Correct or delete them; if the task is disabled by then, reset it.',
                    to_char(reached.bad_window at time zone 'UTC', 'YYYY-MM-DD HH24:MI')
                )
        end,
        reached.bad_window is null
        and (
            coalesce(reached.reached_cursor = reached.ends_at and reached.ends_at < reached.horizon, false)
            or coalesce(reached.finer_has_more, false)
            or reached.symbol in (select full_at.symbol from full_at)
        )
    from reached;
end
$$;

comment on function ohlcv.aggregate(text, text, text[], timestamptz, integer, integer) is
'Builds the windows that are over at p_as_of (null: none), and stale ones, of an owner''s tasks of one timeframe';
revoke all on function ohlcv.aggregate(text, text, text[], timestamptz, integer, integer) from public;
