-- Called by every run before it claims tasks. Only the clock of the database measures the age of a claim. Skips tasks
-- whose bars are being written: their rows are locked.
create or replace function ohlcv.recover_stale_locks(p_seconds integer) returns integer
language sql
volatile
as $$
    with abandoned as (
        select task.symbol, task.timeframe
        from ohlcv.tasks as task
        where task.status = 'running' and task.claimed_at < clock_timestamp() - make_interval(secs => p_seconds)
        order by task.symbol, task.timeframe
        for no key update skip locked
    ),

    recovered as (
        update ohlcv.tasks as task
        set status = 'idle', owner = null, claimed_at = null, last_error = 'Its run was lost. The next run builds it.'
        from abandoned
        where task.symbol = abandoned.symbol and task.timeframe = abandoned.timeframe
        returning task.symbol
    )

    select count(*)::integer from recovered
$$;

comment on function ohlcv.recover_stale_locks is
'Releases tasks that were claimed more than p_seconds ago; returns how many';
