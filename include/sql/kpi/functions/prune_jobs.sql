-- Called by aggregator.kpi.jobs.prune. Deletes old jobs with their KPIs. Returns the number of jobs.
create or replace function kpi.prune_jobs(_keep interval)
returns integer
language plpgsql
volatile
set search_path = ''
set datestyle = 'ISO, MDY'
set timezone = 'UTC'
as $$
declare
    pruned integer;
begin
    delete from kpi.jobs as job where job.created_at < now() - _keep;
    get diagnostics pruned = row_count;
    return pruned;
end
$$;

comment on function kpi.prune_jobs(interval) is 'Deletes jobs older than the given interval';
revoke all on function kpi.prune_jobs(interval) from public;
