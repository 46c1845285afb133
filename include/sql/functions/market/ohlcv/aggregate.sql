-- Called by ohlcv.catchup_aggregation_range for one task and by include/sql/ohlcv/aggregate.sql for many: builds what
-- their owner's tasks of one timeframe have to build, and changes no task. What it finds goes to ohlcv.finish_tasks.
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

    return query
    with claimed as materialized (
        select
            task.symbol,
            task.source_timeframe,
            task.size,
            source.size as source_size,
            (extract(epoch from task.size) / extract(epoch from base.size))::integer as expected_candles,
            task.built_until,
            finer.owner is not distinct from p_owner and finer.status = 'running' as finer_has_more,
            coalesce(task.cursor, date_bin(task.size, task.starts_at, timestamptz '2000-01-01 00:00+00')) as cursor,
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
        inner join ohlcv.assets as asset on task.symbol = asset.symbol
        inner join ohlcv.timeframes as base on asset.base_timeframe = base.timeframe
        left join ohlcv.tasks as finer on task.symbol = finer.symbol and task.source_timeframe = finer.timeframe
        where task.symbol = any(held) and task.timeframe = p_timeframe
    ),

    noted as (
        select
            claimed.*,
            stale.window_start,
            stale.ends_at,
            stale.empties,
            stale.ctid as place,
            dense_rank() over (partition by stale.symbol order by stale.window_start) as position
        from claimed
        inner join ohlcv.stale_windows as stale on claimed.symbol = stale.symbol and stale.timeframe = p_timeframe
    ),

    taken as (
        delete from ohlcv.stale_windows as stale
        using noted
        where stale.ctid = noted.place and noted.position <= p_max_windows
        returning noted.*
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
            cursor,
            built_until,
            expected_candles,
            coalesce(range_agg(windows) filter (where empties), '{}') as changed,
            coalesce(range_agg(windows) filter (where not empties), '{}') as asked_for
        from taken
        cross join lateral (
            -- What is not built yet is built anyway, and from here on with these candles.
            select tstzrange(taken.window_start, least(taken.ends_at, taken.cursor)) as windows
        ) as part
        where window_start < cursor
        group by symbol, source_timeframe, source_size, cursor, built_until, expected_candles
    ),

    ranges as (
        select array_agg(range) as ranges
        from (
            select row(
                symbol, source_timeframe, lower(part.windows), upper(part.windows), true, source_size, cursor,
                built_until, expected_candles, part.empties
            )::ohlcv.source_range as range
            from stale
            cross join lateral (
                select unnest(stale.changed) as windows, true as empties
                union all
                select unnest(stale.asked_for - stale.changed), false
            ) as part
            union all
            select row(
                symbol, source_timeframe, starts_at, ends_at, false, source_size, cursor, built_until,
                expected_candles, false
            )::ohlcv.source_range
            from planned
            where starts_at < ends_at
        ) as every
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
                when built.bad_window is not null then greatest(planned.cursor, built.bad_window)
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
            extract(epoch from reached.reached_cursor - coalesce(reached.cursor, reached.starts_at))
            / extract(epoch from reached.size) - reached.new_bars,
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
            or reached.symbol in (select noted.symbol from noted where noted.position > p_max_windows)
        )
    from reached;
end
$$;

comment on function ohlcv.aggregate(text, text, text[], timestamptz, integer, integer) is
'Builds the windows that are over at p_as_of (null: none), and stale ones, of an owner''s tasks of one timeframe';
revoke all on function ohlcv.aggregate(text, text, text[], timestamptz, integer, integer) from public;
