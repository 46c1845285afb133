-- Called from psql. The DAG claims many tasks at once with ohlcv.claim_tasks.
create or replace function ohlcv.agg_start(p_symbol text, p_timeframe text, p_owner text)
returns table (cursor timestamptz)
language sql
volatile
as $$
    select task.cursor
    from ohlcv.claim_tasks(p_owner, array[p_symbol], array[p_timeframe]) as claimed
    inner join ohlcv.tasks as task on task.symbol = p_symbol collate "C" and task.timeframe = p_timeframe collate "C"
    where claimed = 1
$$;

comment on function ohlcv.agg_start is
'Claims an idle task for an owner; returns one row with its cursor, or no row if the task is not idle';
