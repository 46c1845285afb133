-- Called by aggregator.kpi.jobs.read. Returns what a job knows about one KPI.
select
    stored.status,
    stored.requests,
    stored.retry_count,
    stored.idempotency_key,
    stored.error,
    case when stored.retry_at is not null then greatest(stored.retry_at - now(), '0') end as retry_after
from kpi.job_kpis as stored
where stored.trace_id = %(trace_id)s and stored.kpi_id = %(kpi_id)s
