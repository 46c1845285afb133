-- Called by ohlcv.agg_start for one task, and by include/sql/ohlcv/claim_due_tasks.sql and claim_tasks.sql for many.
-- Tasks that somebody else works on are left out, so two runs never wait for each other.
create or replace function ohlcv.claim_tasks(p_owner text, p_symbols text[], p_timeframes text[]) returns integer
language plpgsql
volatile
set search_path = ''
-- The planner expects few of the pairs to meet, and would look each task up by itself.
set enable_nestloop = off
-- As in ohlcv.aggregate.
set plan_cache_mode = force_generic_plan
as $$
declare
    claimed integer;
begin
    -- Whoever drains the log of changes holds this alone: see ohlcv.drain_candle_changes.
    perform pg_advisory_xact_lock_shared(hashtext('ohlcv.candle_changes'));
    with free as (
        select task.symbol, task.timeframe
        from ohlcv.tasks as task
        inner join unnest(p_symbols, p_timeframes) as given (symbol, timeframe)
            on task.symbol = given.symbol collate "C" and task.timeframe = given.timeframe collate "C"
        where task.symbol = any(p_symbols) and task.status = 'idle' and task.enabled
        order by task.symbol, task.timeframe
        for no key update of task skip locked
    )

    update ohlcv.tasks as task
    set status = 'running', owner = p_owner, claimed_at = now(), last_attempt_at = now()
    from free
    where task.symbol = any(p_symbols) and task.symbol = free.symbol and task.timeframe = free.timeframe;
    get diagnostics claimed = row_count;
    return claimed;
end
$$;

comment on function ohlcv.claim_tasks(text, text[], text[]) is
'Claims the idle ones of the tasks (symbols and timeframes, pairwise) for an owner; returns how many';
revoke all on function ohlcv.claim_tasks(text, text[], text[]) from public;
