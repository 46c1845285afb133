-- Called by aggregator.web.operations. Returns a page of the jobs, the newest first: of a range of time, of
-- %(trace_id)s, or of a run.
select
    job.trace_id,
    job.dag_id,
    job.run_id,
    job.environment,
    record.status,
    record.created_at,
    record.updated_at,
    (record.metadata ->> 'totalKPIs')::bigint as kpis,
    (record.metadata ->> 'completedKPIs')::bigint as completed,
    (record.metadata ->> 'failedKPIs')::bigint as failed,
    page.total
from (
    select
        trace_id,
        count(*) over () as total
    from kpi.jobs
    where
        created_at >= coalesce(%(first_day)s::date::timestamp at time zone 'UTC', '-infinity')
        and created_at < coalesce(%(until_day)s::date::timestamp at time zone 'UTC', 'infinity')
        and (%(trace_id)s::text is null or trace_id = %(trace_id)s)
        and (%(run_id)s::text is null or run_id = %(run_id)s)
    order by created_at desc, trace_id asc
    limit %(limit)s offset %(offset)s
) as page
inner join kpi.jobs as job on page.trace_id = job.trace_id
inner join kpi.job_records as record on page.trace_id = record.trace_id
order by record.created_at desc, job.trace_id asc
