-- Called by aggregator.kpi.jobs.claim, in a transaction of its own before the request. Returns claimed, accepted,
-- unknown or sent by another run; null if the job has no such KPI.
create or replace function kpi.claim_kpi(
    _trace_id text, _kpi_id text, _owner text, _retry_group text, _resend boolean
)
returns text
language plpgsql
volatile
set search_path = ''
set datestyle = 'ISO, MDY'
set timezone = 'UTC'
as $$
begin
    -- A trace id begins with its day: of the runs of a day that would send the KPI now, one does, and the others see it.
    perform pg_advisory_xact_lock(hashtextextended(left(_trace_id, 14) || _kpi_id, 0));

    if
        not _resend
        and exists (
            select from kpi.jobs as job
            inner join kpi.job_kpis as other on job.trace_id = other.trace_id
            where
                starts_with(job.trace_id, left(_trace_id, 14))
                and job.trace_id <> _trace_id
                and other.kpi_id = _kpi_id
                and other.status not in ('pending', 'failed')
        )
        and not exists (
            select from kpi.job_kpis as own
            where own.trace_id = _trace_id and own.kpi_id = _kpi_id and own.status not in ('pending', 'failed')
        )
    then
        -- As in create_job: a KPI that another run has sent is none of this job's.
        delete from kpi.job_kpis as stored
        where stored.trace_id = _trace_id and stored.kpi_id = _kpi_id and stored.status in ('pending', 'failed');
        return 'sent by another run';
    end if;

    -- A backfill can run a run again with resend that was first run without. The request is granted once: a clear of
    -- a run with resend sends only what failed, like any other clear.
    update kpi.job_kpis as stored
    set status = 'pending', retry_count = 0, error = null
    where
        stored.trace_id = _trace_id
        and stored.kpi_id = _kpi_id
        and stored.status in ('triggered', 'unknown', 'completed', 'timeout')
        and _resend
        and not stored.resend;

    update kpi.job_kpis as stored
    set
        status = 'sending',
        owner = _owner,
        send_number = stored.send_number + (
            stored.sent_at is not null
            and (stored.retry_group is distinct from _retry_group or (_resend and not stored.resend))
        )::integer,
        retry_group = _retry_group,
        resend = stored.resend or _resend,
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

    -- The earlier owner was killed or is still sending: its request may have arrived, so no second one is sent. If it
    -- is still sending, it may record the outcome.
    update kpi.job_kpis as stored
    set status = 'unknown', resend = stored.resend or _resend
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

comment on function kpi.claim_kpi(text, text, text, text, boolean) is 'Gives a KPI to the one owner that may send it';
revoke all on function kpi.claim_kpi(text, text, text, text, boolean) from public;
