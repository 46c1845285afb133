-- Called by every run before it claims tasks. The age of a lock is the database's clock alone. The row of a task whose
-- bars are being written right now is locked, and left out.
create or replace function ohlcv.recover_stale_locks(p_seconds integer) returns integer
language plpgsql
volatile
set search_path = ''
set datestyle = 'ISO, MDY'
set timezone = 'UTC'
as $$
declare
    recovered integer;
begin
    with abandoned as (
        select task.symbol, task.timeframe
        from ohlcv.tasks as task
        where task.status = 'running' and task.claimed_at < clock_timestamp() - make_interval(secs => p_seconds)
        order by task.symbol, task.timeframe
        for no key update skip locked
    )

    update ohlcv.tasks as task
    set status = 'idle', owner = null, claimed_at = null, last_error = 'Its run was lost; the next one takes it over.'
    from abandoned
    where task.symbol = abandoned.symbol and task.timeframe = abandoned.timeframe;
    get diagnostics recovered = row_count;
    return recovered;
end
$$;

comment on function ohlcv.recover_stale_locks(integer) is
'Makes tasks idle again that were claimed longer ago than so many seconds; returns how many';
revoke all on function ohlcv.recover_stale_locks(integer) from public;
