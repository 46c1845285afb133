-- Called from psql with the row of ohlcv.catchup_aggregation_range, and by include/sql/ohlcv/queries/fail_task.sql with
-- a row that has an error. In psql, run both in one statement or transaction: bars and cursor must be stored together.
-- docs/products/ohlcv.md has an example.
create or replace function ohlcv.agg_finish(
    p_owner text, p_result ohlcv.task_result, p_max_hard_fails integer default 3, p_job_name text default 'agg-master'
)
returns text
language plpgsql
volatile
as $$
begin
    -- Remaining windows are built after the next claim.
    p_result.has_more := false;
    perform ohlcv.finish_tasks(p_job_name, p_owner, array[p_result], p_max_hard_fails);
    return (
        select task.status
        from ohlcv.tasks as task
        where task.symbol = p_result.symbol collate "C" and task.timeframe = p_result.timeframe collate "C"
    );
end
$$;

comment on function ohlcv.agg_finish is
'Stores the result of a task (outcome success, transient or hard), releases the task and returns its status; raises '
'an error if the owner does not hold the task';
