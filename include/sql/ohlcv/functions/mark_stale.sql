-- Called by include/sql/ohlcv/queries/mark_run_stale.sql and mark_range_stale.sql for a rebuild. A rebuild marks
-- windows like late candles do, with one difference: windows without source rows keep their bars.
create or replace function ohlcv.mark_stale(
    p_symbols text[], p_timeframe text, p_from timestamptz, p_to timestamptz
)
returns integer
language plpgsql
volatile
set search_path = ''
set datestyle = 'ISO, MDY'
set timezone = 'UTC'
as $$
declare
    marked integer;
begin
    insert into ohlcv.stale_windows (symbol, timeframe, window_start, ends_at, empties)
    select task.symbol, task.timeframe, edge.first, edge.last, false
    from ohlcv.tasks as task
    cross join lateral (
        select
            greatest(
                date_bin(
                    task.size, p_from + task.size - interval '1 microsecond', timestamptz '2000-01-01 00:00+00'
                ),
                date_bin(task.size, task.starts_at, timestamptz '2000-01-01 00:00+00')
            ) as first,
            least(
                date_bin(task.size, p_to + task.size - interval '1 microsecond', timestamptz '2000-01-01 00:00+00'),
                task.cursor
            ) as last
    ) as given
    cross join lateral (
        select
            case
                -- Skips years without source rows.
                when given.first < given.last - 1000 * task.size
                    then date_bin(
                        task.size,
                        ohlcv.next_source_row(task.symbol, task.source_timeframe, given.first),
                        timestamptz '2000-01-01 00:00+00'
                    )
                else given.first
            end as first,
            given.last
    ) as edge
    where
        task.timeframe = p_timeframe
        and (p_symbols is null or task.symbol = any(p_symbols))
        and task.cursor is not null
        and edge.first < edge.last;
    get diagnostics marked = row_count;
    return marked;
end
$$;

comment on function ohlcv.mark_stale(text[], text, timestamptz, timestamptz) is
'Marks the built windows that start between p_from and p_to stale, of all symbols if none are given; returns the '
'number of tasks';
revoke all on function ohlcv.mark_stale(text[], text, timestamptz, timestamptz) from public;
