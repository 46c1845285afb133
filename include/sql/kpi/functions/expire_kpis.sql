-- Called by aggregator.kpi.jobs.expire. In every job, KPIs whose report is overdue become timeout, and KPIs whose
-- sender is gone become unknown. Returns the number of KPIs.
create or replace function kpi.expire_kpis(_timeout interval)
returns integer
language plpgsql
volatile
set search_path = ''
set datestyle = 'ISO, MDY'
set timezone = 'UTC'
as $$
declare
    expired integer;
begin
    update kpi.job_kpis as stored
    set
        status = case when stored.status = 'sending' then 'unknown' else 'timeout' end,
        error = case
            when stored.status <> 'sending'
                then format('n8n did not report back within %s minutes.', round(extract(epoch from _timeout) / 60))
        end
    where
        stored.sent_at <= now() - _timeout
        and (stored.status = 'sending' or (stored.report_back and stored.status in ('triggered', 'unknown')));
    get diagnostics expired = row_count;
    return expired;
end
$$;

comment on function kpi.expire_kpis(interval) is 'Ends the wait for overdue reports and lost senders';
revoke all on function kpi.expire_kpis(interval) from public;
