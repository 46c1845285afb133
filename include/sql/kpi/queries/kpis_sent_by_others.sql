-- Called by aggregator.kpi.jobs.sent_by_other_runs. Returns one row: whether the job exists, and the KPIs that other
-- jobs of the same UTC day sent and this job did not, as a JSON object of trace ids by KPI id.
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
    -- The first 14 characters of a trace id contain its day.
    starts_with(job.trace_id, left(%(trace_id)s, 14))
    and job.trace_id <> %(trace_id)s
    and other.status not in ('pending', 'failed')
    and not exists (
        select from kpi.job_kpis as own
        where own.trace_id = %(trace_id)s and own.kpi_id = other.kpi_id and own.status not in ('pending', 'failed')
    )
