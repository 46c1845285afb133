-- Called by ohlcv.agg_start for one task, and by include/sql/ohlcv/queries/claim_due_tasks.sql and claim_tasks.sql for
-- many. Skips tasks that another session holds or changes, so that two runs never wait for each other.
create or replace function ohlcv.claim_tasks(p_owner text, p_symbols text[], p_timeframes text[]) returns integer
language plpgsql
volatile
-- Statistics collected while all tasks were running would make the planner compare each task with each given pair.
set enable_nestloop = off
set jit = off
as $$
declare
    claimed integer;
begin
    -- ohlcv.drain_candle_changes holds this lock exclusively and explains why.
    perform pg_advisory_xact_lock_shared(hashtext('ohlcv.candle_changes'));
    with free as (
        select task.ctid as row_id
        from unnest(p_symbols, p_timeframes) as given (symbol, timeframe)
        inner join ohlcv.tasks as task
            on task.symbol = given.symbol collate "C" and task.timeframe = given.timeframe collate "C"
        where task.status = 'idle' and task.enabled
        for no key update of task skip locked
    )

    update ohlcv.tasks as task
    set status = 'running', owner = p_owner, claimed_at = now(), last_attempt_at = now()
    from free
    where task.ctid = free.row_id;
    get diagnostics claimed = row_count;
    return claimed;
end
$$;

comment on function ohlcv.claim_tasks is
'Claims for an owner those of the given tasks (symbols and timeframes, pairwise) that are idle; returns how many';
