-- Called by aggregator.kpi.jobs.finalize, when no task of the run is sending. KPIs that are still sending lost their
-- sender and become unknown. Returns whether the job exists.
create or replace function kpi.settle_job(_trace_id text)
returns boolean
language plpgsql
volatile
set search_path = ''
set datestyle = 'ISO, MDY'
set timezone = 'UTC'
as $$
begin
    update kpi.job_kpis as stored
    set status = 'unknown'
    where stored.trace_id = _trace_id and stored.status = 'sending';

    update kpi.jobs as job
    set settled_at = coalesce(job.settled_at, now())
    where job.trace_id = _trace_id;
    return found;
end
$$;

comment on function kpi.settle_job(text) is 'Ends the sending of a job; only reports change its status after that';
revoke all on function kpi.settle_job(text) from public;
