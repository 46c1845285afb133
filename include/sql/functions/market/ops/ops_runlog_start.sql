-- Called by the first task of a run, and from psql. A second try of the run goes on with its row.
create or replace function ops.ops_runlog_start(
    p_job_name text, p_env_name text, p_run_id text, p_as_of timestamptz default null
)
returns table (runlog_id bigint, was_finished boolean)
language plpgsql
volatile
set search_path = ''
set datestyle = 'ISO, MDY'
set timezone = 'UTC'
as $$
#variable_conflict use_column
declare
    known ops.ops_runlog;
begin
    select * into known
    from ops.ops_runlog as runlog
    where runlog.job_name = p_job_name and runlog.run_id = p_run_id
    for update;
    insert into ops.ops_runlog as runlog (job_name, env_name, run_id, as_of)
    values (p_job_name, p_env_name, p_run_id, p_as_of)
    on conflict (job_name, run_id) do update
        set
            status = 'running',
            env_name = excluded.env_name,
            finished_at = null,
            error = null,
            started_at = case when runlog.finished_at is null then runlog.started_at else now() end,
            checkpoints = case when runlog.finished_at is null then runlog.checkpoints else '[]' end,
            totals = '{}'
    returning runlog.id into runlog_id;
    was_finished := known.finished_at is not null;
    if was_finished then
        delete from ops.ops_runlog_tasks as statistic where statistic.runlog_id = known.id;
    end if;
    return next;
end
$$;

comment on function ops.ops_runlog_start(text, text, text, timestamptz) is
'Opens the row of a run; returns its id, and whether the run had finished before and is done again';
revoke all on function ops.ops_runlog_start(text, text, text, timestamptz) from public;
