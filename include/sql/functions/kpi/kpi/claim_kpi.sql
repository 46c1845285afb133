-- Called by aggregator.kpi.jobs.claim, in a transaction of its own before the request. Answers claimed, accepted or
-- unknown; null if the job has no such KPI.
create or replace function kpi.claim_kpi(_trace_id text, _kpi_id text, _owner text, _resend text)
returns text
language plpgsql
volatile
set search_path = ''
as $$
begin
    update kpi.job_kpis as stored
    set status = 'pending', retry_count = 0, error = null
    where
        stored.trace_id = _trace_id
        and stored.kpi_id = _kpi_id
        and stored.status in ('triggered', 'unknown', 'completed', 'timeout')
        and stored.resend is distinct from _resend
        and _resend is not null;

    update kpi.job_kpis as stored
    set
        status = 'sending',
        owner = _owner,
        resend = coalesce(_resend, stored.resend),
        retry_count = stored.retry_count + (stored.status = 'failed')::integer,
        error = null,
        sent_at = now()
    where
        stored.trace_id = _trace_id
        and stored.kpi_id = _kpi_id
        and stored.status in ('pending', 'failed');
    if found then
        return 'claimed';
    end if;

    -- Whoever was sending it is gone, or at it still: its request may have arrived, so there is no second one. The one
    -- that is at it still may say what came of it.
    update kpi.job_kpis as stored
    set
        status = 'unknown',
        error = 'The task ended between the request and its answer; n8n may have run the workflow.'
    where
        stored.trace_id = _trace_id
        and stored.kpi_id = _kpi_id
        and stored.status = 'sending';

    return (
        select case when stored.status = 'unknown' then 'unknown' else 'accepted' end
        from kpi.job_kpis as stored
        where stored.trace_id = _trace_id and stored.kpi_id = _kpi_id
    );
end
$$;

comment on function kpi.claim_kpi(text, text, text, text) is 'Gives a KPI to the one owner that may send it';
revoke all on function kpi.claim_kpi(text, text, text, text) from public;
