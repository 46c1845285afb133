-- Called by the tasks of a run after each step, and from psql.
create or replace function ops.ops_runlog_checkpoint(
    p_job_name text, p_run_id text, p_name text, p_details jsonb default '{}'
)
returns void
language sql
volatile
as $$
    update ops.ops_runlog
    set checkpoints = checkpoints || jsonb_build_array(
        jsonb_build_object('name', p_name, 'at', clock_timestamp()) || p_details
    )
    where job_name = p_job_name and run_id = p_run_id
$$;

comment on function ops.ops_runlog_checkpoint is
'Adds a checkpoint with a name and details to the run log row of a run';
