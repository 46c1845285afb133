-- Called by the last task of a run, and from psql. Deletes old rows of finished runs. Closes rows without a checkpoint
-- for a day as failed: runs that were deleted or marked by hand, or whose DAG was removed, never close their row.
create or replace function ops.ops_runlog_prune(p_job_name text, p_keep integer) returns integer
language plpgsql
volatile
as $$
declare
    pruned integer;
begin
    -- No task of a run takes a day.
    update ops.ops_runlog as runlog
    set
        status = 'failed',
        finished_at = clock_timestamp(),
        error = 'The run did not reach its last task: it was deleted, or its state was set by hand.'
    where
        runlog.job_name = p_job_name
        and runlog.finished_at is null
        and greatest(runlog.started_at, (runlog.checkpoints -> -1 ->> 'at')::timestamptz)
        < clock_timestamp() - interval '1 day';

    with old as (
        select runlog.id
        from ops.ops_runlog as runlog
        where runlog.job_name = p_job_name and runlog.finished_at is not null
        order by runlog.id desc
        offset p_keep
        for update skip locked
    ),

    statistic as (
        delete from ops.ops_runlog_tasks using old where ops_runlog_tasks.runlog_id = old.id
    )

    delete from ops.ops_runlog using old where ops_runlog.id = old.id;
    get diagnostics pruned = row_count;
    return pruned;
end
$$;

comment on function ops.ops_runlog_prune is
'Closes the run log rows of lost runs as failed, and deletes all but the p_keep newest finished rows of a job with '
'their statistics; returns how many rows it deleted';
