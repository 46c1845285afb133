-- Called by aggregator.web.operations.dags. Returns label, value and unit of the job of the run %(run_id)s; if it is
-- null, of the jobs of a range of UTC days.
with results as (
    select
        count(distinct job.trace_id) as jobs,
        count(stored.kpi_id) as kpis,
        count(*) filter (where stored.status = 'completed') as completed,
        count(*) filter (where stored.status = 'triggered') as triggered,
        count(*) filter (where stored.status in ('failed', 'timeout')) as failed,
        count(*) filter (where stored.status = 'unknown') as unknown,
        coalesce(sum(stored.retry_count), 0) as retries
    from kpi.jobs as job
    left join kpi.job_kpis as stored on job.trace_id = stored.trace_id
    where
        case
            when %(run_id)s::text is not null then job.run_id = %(run_id)s
            else
                job.created_at >= %(first_day)s::date::timestamp at time zone 'UTC'
                and job.created_at < %(until_day)s::date::timestamp at time zone 'UTC'
        end
)

select
    figure.label,
    figure.value,
    null as unit
from results
cross join
    lateral (
        values
        (1, 'Jobs', results.jobs),
        (2, 'KPIs', results.kpis),
        (3, 'Completed', results.completed),
        (4, 'Sent', results.triggered),
        (5, 'Failed or timed out', results.failed),
        (6, 'Unknown', results.unknown),
        (7, 'Retries', results.retries)
    ) as figure (position, label, value)
order by figure.position
