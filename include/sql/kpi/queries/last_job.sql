-- Called by aggregator.web.health. Returns the newest job that is not dated in the future. The column record is left
-- out, so PostgreSQL does not build the JSON of all KPIs.
select
    record.trace_id,
    record.status,
    record.created_at,
    record.updated_at,
    record.metadata
from kpi.job_records as record
where
    record.trace_id = (
        select job.trace_id
        from kpi.jobs as job
        where job.created_at >= '1970-01-01 00:00+00' and job.created_at <= now()
        order by job.created_at desc
        limit 1
    )
