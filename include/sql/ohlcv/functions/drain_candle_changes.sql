-- Called by every run before it claims tasks. A log row and its candles become visible together, so a candle that is
-- committed after this leaves its row for the next run.
--
-- A window that its task, or a coarser one, has passed has to be built again. One that was not passed is built anyway,
-- by whoever claims the task after this and so sees the candle; but not by somebody who has claimed it before and may
-- have read the candles already. Such claims are visible as status running, or stand in a transaction that is still
-- open: those are kept out by the lock.
create or replace function ohlcv.drain_candle_changes() returns integer
language plpgsql
volatile
set search_path = ''
set datestyle = 'ISO, MDY'
set timezone = 'UTC'
set lock_timeout = '2s'
as $$
declare
    noted integer;
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
            -- Of such a symbol both base timeframes are in use.
            or drained.symbol in (select former.symbol from ohlcv.former_base_timeframes as former)
        )
        and (drained.window_start < task.built_until or task.status = 'running')
        and (
            task.starts_at is null
            or drained.window_start >= date_bin(task.size, task.starts_at, timestamptz '2000-01-01 00:00+00')
        );
    get diagnostics noted = row_count;
    return noted;
end
$$;

comment on function ohlcv.drain_candle_changes() is
'Turns the log of changed candles into stale windows; returns how many, or null if somebody held a claim open too long';
revoke all on function ohlcv.drain_candle_changes() from public;
