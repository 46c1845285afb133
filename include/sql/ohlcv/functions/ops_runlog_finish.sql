-- Called by the last task of a run, and from psql.
create or replace function ops.ops_runlog_finish(
    p_job_name text, p_run_id text, p_status text, p_totals jsonb default '{}', p_error text default null
)
returns boolean
language plpgsql
volatile
as $$
declare
    finished_id bigint;
begin
    update ops.ops_runlog
    set status = p_status, totals = p_totals, error = p_error, finished_at = clock_timestamp()
    where job_name = p_job_name and run_id = p_run_id
    returning id into finished_id;
    if p_status = 'success' then
        delete from ops.ops_runlog_progress where runlog_id = finished_id;
    end if;
    return finished_id is not null;
end
$$;

comment on function ops.ops_runlog_finish is
'Closes the run log row of a run with status success or failed; returns false if the run has no row';
