-- Called by the first task of a run, and from psql. A retry of the run continues its row. So does a clear of a failed
-- rebuild that has progress. A clear of any other finished run restarts the row.
create or replace function ops.ops_runlog_start(
    p_job_name text, p_env_name text, p_run_id text, p_as_of timestamptz default null
)
returns table (runlog_id bigint, was_finished boolean)
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    known ops.ops_runlog;
    is_anew boolean;
begin
    select * into known
    from ops.ops_runlog as runlog
    where runlog.job_name = p_job_name and runlog.run_id = p_run_id
    for update;
    was_finished := known.finished_at is not null;
    is_anew := was_finished and not exists (
        select from ops.ops_runlog_progress as progress where progress.runlog_id = known.id
    );
    insert into ops.ops_runlog as runlog (job_name, env_name, run_id, as_of)
    values (p_job_name, p_env_name, p_run_id, p_as_of)
    on conflict (job_name, run_id) do update
        set
            status = 'running',
            env_name = excluded.env_name,
            finished_at = null,
            error = null,
            started_at = case when is_anew then now() else runlog.started_at end,
            checkpoints = case when is_anew then '[]' else runlog.checkpoints end,
            totals = '{}'
    returning runlog.id into runlog_id;
    if is_anew then
        delete from ops.ops_runlog_tasks as statistic where statistic.runlog_id = known.id;
    end if;
    return next;
end
$$;

comment on function ops.ops_runlog_start is
'Opens the run log row of a run; returns its id, and whether the run had finished before';
