-- Called by every run before it claims tasks. Moves the log of changed candles to ohlcv.stale_windows.
--
-- No change is lost:
--
-- - A log row and its candles become visible together. Candles that are committed later leave their row for the next
--   run.
-- - Windows before the built_until watermark become stale.
-- - Later windows are built anyway by the next claim of their task, which reads the new candles. An earlier claim may
--   have read the old candles: if it is committed, the task is running and the window becomes stale. If it is not, the
--   advisory lock waits for its transaction for at most 2 seconds.
create or replace function ohlcv.drain_candle_changes() returns integer
language plpgsql
volatile
set lock_timeout = '2s'
as $$
declare
    added integer;
begin
    begin
        perform pg_advisory_xact_lock(hashtext('ohlcv.candle_changes'));
    exception when lock_not_available then
        return null;
    end;
    with drained as (
        delete from ohlcv.candle_changes
        returning symbol, timeframe, window_start
    )

    insert into ohlcv.stale_windows (symbol, timeframe, window_start, ends_at)
    select distinct drained.symbol, task.timeframe, drained.window_start, drained.window_start + task.size
    from drained
    inner join ohlcv.tasks as task on drained.symbol = task.symbol and task.timeframe = '15m'
    where
        (
            drained.timeframe = task.source_timeframe
            -- The base timeframe of the symbol changed: both are in use.
            or drained.symbol in (select former.symbol from ohlcv.former_base_timeframes as former)
        )
        and (drained.window_start < task.built_until or task.status = 'running')
        and drained.window_start >= coalesce(ohlcv.align(task.starts_at, task.size), '-infinity');
    get diagnostics added = row_count;
    return added;
end
$$;

comment on function ohlcv.drain_candle_changes is
'Turns logged candle changes into stale windows; returns how many, or null if a claim stayed uncommitted for 2 '
'seconds';
