-- Called by include/sql/ohlcv/queries/mark_run_stale.sql and aggregator.ohlcv.rebuild. A rebuild marks
-- windows like late candles do, with one difference: windows without source rows keep their bars.
create or replace function ohlcv.mark_stale(p_symbols text[], p_timeframe text, p_from timestamptz, p_to timestamptz)
returns integer
language sql
volatile
as $$
    with marked as (
        insert into ohlcv.stale_windows (symbol, timeframe, window_start, ends_at, empties)
        select task.symbol, task.timeframe, edge.first, edge.last, false
        from ohlcv.tasks as task
        cross join lateral (
            select
                greatest(
                    ohlcv.align(p_from + task.size - interval '1 microsecond', task.size),
                    ohlcv.align(task.starts_at, task.size)
                ) as first,
                least(ohlcv.align(p_to + task.size - interval '1 microsecond', task.size), task.cursor) as last
        ) as given
        cross join lateral (
            select
                case
                    when given.first >= given.last - 1000 * task.size then given.first
                    -- Skips years without source rows.
                    else ohlcv.align(ohlcv.next_source_row(task.symbol, task.source_timeframe, given.first), task.size)
                end as first,
                given.last
        ) as edge
        where
            task.timeframe = p_timeframe
            and (p_symbols is null or task.symbol = any(p_symbols))
            and task.cursor is not null
            and edge.first < edge.last
        returning stale_windows.symbol
    )

    select count(*)::integer from marked
$$;

comment on function ohlcv.mark_stale is
'Marks the built windows that start between p_from and p_to stale, of all symbols if none are given; returns the '
'number of tasks';
