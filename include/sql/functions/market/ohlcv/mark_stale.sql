-- Called by include/sql/ohlcv/mark_run_stale.sql and mark_range_stale.sql: a rebuild asks for windows as a late candle
-- does. Windows that have no source rows are left alone: an empty source never erases bars.
create or replace function ohlcv.mark_stale(
    p_symbols text[], p_timeframe text, p_from timestamptz, p_to timestamptz
)
returns integer
language plpgsql
volatile
set search_path = ''
set jit = off
as $$
declare
    marked integer;
begin
    insert into ohlcv.stale_windows (symbol, timeframe, window_start)
    select task.symbol, task.timeframe, window_.ts
    from ohlcv.tasks as task
    inner join ohlcv.timeframes as source on task.source_timeframe = source.timeframe
    cross join lateral (
        select distinct date_bin(task.size, candle.ts, timestamptz '2000-01-01 00:00+00') as ts
        from ohlcv.candles as candle
        where
            source.is_base
            and candle.symbol = task.symbol
            and candle.timeframe = task.source_timeframe
            and candle.ts >= p_from
            and candle.ts < p_to + task.size
            and candle.ts < task.cursor
        union all
        select distinct date_bin(task.size, bar.ts, timestamptz '2000-01-01 00:00+00')
        from ohlcv.bars as bar
        where
            not source.is_base
            and bar.symbol = task.symbol
            and bar.timeframe = task.source_timeframe
            and bar.ts >= p_from
            and bar.ts < p_to + task.size
            and bar.ts < task.cursor
    ) as window_
    where
        task.timeframe = p_timeframe
        and (p_symbols is null or task.symbol = any(p_symbols))
        and window_.ts >= p_from
        and window_.ts < p_to;
    get diagnostics marked = row_count;
    return marked;
end
$$;

comment on function ohlcv.mark_stale(text[], text, timestamptz, timestamptz) is
'Has windows that were built and start from p_from up to p_to built again, of all symbols if none are given; how many';
revoke all on function ohlcv.mark_stale(text[], text, timestamptz, timestamptz) from public;
