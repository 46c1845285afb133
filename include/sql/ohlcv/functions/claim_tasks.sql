-- Called by ohlcv.agg_start for one task, and by include/sql/ohlcv/queries/claim_due_tasks.sql and claim_tasks.sql for
-- many. Tasks that somebody else works on, or changes just now, are left out, so two runs never wait for each other.
create or replace function ohlcv.claim_tasks(p_owner text, p_symbols text[], p_timeframes text[]) returns integer
language plpgsql
volatile
set search_path = ''
set datestyle = 'ISO, MDY'
set timezone = 'UTC'
-- Statistics of a moment when all tasks were running make the planner compare each task with each pair.
set enable_nestloop = off
-- The planner charges so much for a nested loop it cannot avoid that it would compile the statement.
set jit = off
as $$
declare
    claimed integer;
begin
    -- Whoever drains the log of changes holds this alone: see ohlcv.drain_candle_changes.
    perform pg_advisory_xact_lock_shared(hashtext('ohlcv.candle_changes'));
    with free as (
        select task.ctid as place
        from unnest(p_symbols, p_timeframes) as given (symbol, timeframe)
        inner join ohlcv.tasks as task
            on task.symbol = given.symbol collate "C" and task.timeframe = given.timeframe collate "C"
        where task.status = 'idle' and task.enabled
        for no key update of task skip locked
    )

    update ohlcv.tasks as task
    set status = 'running', owner = p_owner, claimed_at = now(), last_attempt_at = now()
    from free
    where task.ctid = free.place;
    get diagnostics claimed = row_count;
    return claimed;
end
$$;

comment on function ohlcv.claim_tasks(text, text[], text[]) is
'Claims the idle ones of the tasks (symbols and timeframes, pairwise) for an owner; returns how many';
revoke all on function ohlcv.claim_tasks(text, text[], text[]) from public;
