-- Called by aggregator.kpi.jobs.record, after the request. Stores the outcome unless n8n reported first or a later
-- owner claimed the KPI. _requests are those since the last record. _retry_after is the delay of the next request after
-- a transient failure, else null. Returns the KPI's status after that; null if the job has no such KPI.
create or replace function kpi.record_outcome(
    _trace_id text, _kpi_id text, _owner text, _outcome text, _requests integer, _retry_after interval, _error text
)
returns text
language plpgsql
volatile
set search_path = ''
set datestyle = 'ISO, MDY'
set timezone = 'UTC'
as $$
begin
    update kpi.job_kpis as stored
    set
        status = _outcome,
        requests = stored.requests + _requests,
        retry_count = greatest(stored.retry_count, stored.requests + _requests - 1),
        retry_at = now() + _retry_after,
        error = left(_error, 2000)
    where
        stored.trace_id = _trace_id
        and stored.kpi_id = _kpi_id
        and stored.owner = _owner
        and stored.status in ('sending', 'unknown');

    return (
        select stored.status
        from kpi.job_kpis as stored
        where stored.trace_id = _trace_id and stored.kpi_id = _kpi_id
    );
end
$$;

comment on function kpi.record_outcome(text, text, text, text, integer, interval, text)
is 'Stores the outcome of a request for the owner that claimed it last';
revoke all on function kpi.record_outcome(text, text, text, text, integer, interval, text) from public;
