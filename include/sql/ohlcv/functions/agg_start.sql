-- Called from psql. The DAG claims many tasks at once with ohlcv.claim_tasks.
create or replace function ohlcv.agg_start(p_symbol text, p_timeframe text, p_owner text)
returns table (cursor timestamptz)
language plpgsql
volatile
as $$
#variable_conflict use_column
begin
    if ohlcv.claim_tasks(p_owner, array[p_symbol], array[p_timeframe]) = 1 then
        -- Its own statement: the snapshot of one that claims the task is older than the claim.
        return query
        select task.cursor
        from ohlcv.tasks as task
        where task.symbol = p_symbol collate "C" and task.timeframe = p_timeframe collate "C";
    end if;
end
$$;

comment on function ohlcv.agg_start is
'Claims an idle task for an owner; returns one row with its cursor, or no row if the task is not idle';
