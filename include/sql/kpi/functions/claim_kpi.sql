-- Called by aggregator.kpi.jobs.claim, in a separate transaction before the request. Decides whether to send a KPI.
-- _pass: the caller is the task that sends all KPIs of the run, not the task instance of this KPI.
--
-- State in this job             | Sent by another run | _resend     | Result              | State afterwards
-- ------------------------------+---------------------+-------------+---------------------+-----------------
-- pending, failed               | no                  | any         | claimed             | sending
-- pending, failed               | yes                 | no          | sent by another run | row deleted (*)
-- pending, failed               | yes                 | first, again| claimed             | sending
-- failed, by the pass           | no                  | any         | failed              | unchanged
-- sending                       | any                 | any         | unknown             | unknown
-- triggered, completed, timeout | any                 | no, again   | accepted            | unchanged
-- triggered, completed, timeout | any                 | first       | claimed             | sending
-- unknown                       | any                 | no, again   | unknown             | unchanged
-- unknown                       | any                 | first       | claimed             | sending
-- no row                        | no                  | any         | null                | no row
-- no row                        | yes                 | no          | sent by another run | no row
-- no row                        | yes                 | first, again| null                | no row
--
-- (*) The pass keeps the row: if the other run fails, the instance of this KPI can still send it.
-- Sent by another run: another run of the same UTC day has the KPI in any state but pending and failed.
-- By the pass: the pass made the last claim, and the instance has not seen its outcome. The instance takes the failure
-- over and raises it: its next claim sends the KPI.
-- _resend: "first" is the first claim of this KPI with _resend in this job, "again" any later one.
-- The owner is unique to one try, so a claim never comes from the owner that is sending. Only "claimed" changes the
-- owner. A claim has a new idempotency key if it follows an earlier request and is a first _resend or has another
-- _retry_group. Otherwise it keeps the key.
create or replace function kpi.claim_kpi(
    _trace_id text, _kpi_id text, _owner text, _retry_group text, _resend boolean, _pass boolean
)
returns text
language plpgsql
volatile
set search_path = ''
set datestyle = 'ISO, MDY'
set timezone = 'UTC'
as $$
declare
    is_failure boolean;
begin
    -- A trace id begins with its day. The lock serializes the runs of a day that claim the same KPI.
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
        -- Otherwise a KPI that failed here and succeeded in another run would fail this job indefinitely.
        delete from kpi.job_kpis as stored
        where
            not _pass
            and stored.trace_id = _trace_id
            and stored.kpi_id = _kpi_id
            and stored.status in ('pending', 'failed');
        return 'sent by another run';
    end if;

    -- Whatever the outcome is: if n8n reports a failure later, a clear must send the KPI.
    update kpi.job_kpis as stored
    set by_pass = false, retry_group = _retry_group
    where not _pass and stored.trace_id = _trace_id and stored.kpi_id = _kpi_id and stored.by_pass
    returning stored.status = 'failed' into is_failure;
    if is_failure then
        return 'failed';
    end if;

    -- Granted once for each KPI: with a plain flag, each clear of a run with resend would send everything again.
    update kpi.job_kpis as stored
    set status = 'pending', requests = 0, retry_count = 0, error = null
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
        by_pass = _pass,
        retry_at = null,
        error = null,
        sent_at = now()
    where
        stored.trace_id = _trace_id
        and stored.kpi_id = _kpi_id
        and stored.status in ('pending', 'failed');
    if found then
        return 'claimed';
    end if;

    -- The earlier owner was killed or is still sending, so its request may have arrived. If it is still sending, it may
    -- record its outcome later.
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

comment on function kpi.claim_kpi(text, text, text, text, boolean, boolean)
is 'Decides whether the caller may send a KPI now';
revoke all on function kpi.claim_kpi(text, text, text, text, boolean, boolean) from public;
