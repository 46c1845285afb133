-- Called by aggregator.kpi.operators. Whether there is this job already; and the KPIs that another job of the same UTC
-- day has sent, and this job has not, as JSON: each with that job.
select
    exists(
        select own_job.trace_id
        from kpi.jobs as own_job
        where own_job.trace_id = %(trace_id)s
    ) as known,
    coalesce(jsonb_object_agg(other.kpi_id, other.trace_id order by other.trace_id), '{}') as others
from kpi.jobs as job
inner join kpi.job_kpis as other on job.trace_id = other.trace_id
where
    -- A trace id begins with its day.
    starts_with(job.trace_id, left(%(trace_id)s, 14))
    and job.trace_id <> %(trace_id)s
    and other.status not in ('pending', 'failed')
    and not exists (
        select from kpi.job_kpis as own
        where own.trace_id = %(trace_id)s and own.kpi_id = other.kpi_id and own.status not in ('pending', 'failed')
    )
