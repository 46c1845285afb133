-- Called from psql. The DAG claims many tasks at once with ohlcv.claim_tasks.
create or replace function ohlcv.agg_start(p_symbol text, p_timeframe text, p_owner text)
returns table (cursor timestamptz)
language plpgsql
volatile
set search_path = ''
set datestyle = 'ISO, MDY'
set timezone = 'UTC'
as $$
#variable_conflict use_column
begin
    if ohlcv.claim_tasks(p_owner, array[p_symbol], array[p_timeframe]) = 1 then
        return query
        select task.cursor
        from ohlcv.tasks as task
        where task.symbol = p_symbol collate "C" and task.timeframe = p_timeframe collate "C";
    end if;
end
$$;

comment on function ohlcv.agg_start(text, text, text) is
'Claims an idle task for an owner; returns one row with its cursor, or no row if the task is not idle';
revoke all on function ohlcv.agg_start(text, text, text) from public;
