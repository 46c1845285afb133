-- Called by aggregator.kpi.jobs.report. Stores n8n's report about the end of a workflow. It may arrive before the
-- response to the request is recorded. Returns "reported"; "repeated" if the same report is stored already; the KPI's
-- status if the report cannot follow it; null if the job has no such KPI.
create or replace function kpi.report_kpi(_trace_id text, _kpi_id text, _status text, _error text)
returns text
language plpgsql
volatile
set search_path = ''
set datestyle = 'ISO, MDY'
set timezone = 'UTC'
as $$
begin
    if _status not in ('completed', 'failed') then
        raise exception 'The status of a report is completed or failed, not %', _status using errcode = 'check_violation';
    end if;

    update kpi.job_kpis as stored
    set status = _status, error = left(_error, 2000)
    where
        stored.trace_id = _trace_id
        and stored.kpi_id = _kpi_id
        and stored.status in ('sending', 'triggered', 'unknown');
    if found then
        return 'reported';
    end if;

    return (
        select case when stored.status = _status then 'repeated' else stored.status end
        from kpi.job_kpis as stored
        where stored.trace_id = _trace_id and stored.kpi_id = _kpi_id
    );
end
$$;

comment on function kpi.report_kpi(text, text, text, text) is 'Stores a report of n8n about a KPI, once';
revoke all on function kpi.report_kpi(text, text, text, text) from public;
