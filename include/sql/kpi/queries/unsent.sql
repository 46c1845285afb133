-- Called by aggregator.kpi.jobs.unsent. Returns the KPIs of a job that a task with this retry group should send. A KPI
-- that failed permanently for the same group is left out, and so is one that is being sent.
select stored.kpi_id
from kpi.job_kpis as stored
where
    stored.trace_id = %(trace_id)s
    and (
        stored.status = 'pending'
        or (
            stored.status = 'failed'
            and (stored.retry_at is not null or stored.retry_group is distinct from %(retry_group)s)
        )
        or (%(resend)s and not stored.resend and stored.status <> 'sending')
    )
