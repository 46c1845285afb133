-- Called by aggregator.api.health. The newest job. Without its KPIs: PostgreSQL does not put their JSON together.
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
        order by job.created_at desc
        limit 1
    )
