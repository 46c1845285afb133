-- Called by aggregator.web.operations.kpi. Returns a page of the KPIs of the jobs %(trace_ids)s whose id or newest name
-- contains %(search)s, with the array cells of their results: null for a job without the KPI, in the order of the jobs.
with kpi as (
    select distinct on (stored.kpi_id)
        stored.kpi_id,
        stored.name,
        stored.type,
        stored.report_back
    from unnest(%(trace_ids)s::text[]) with ordinality as job (trace_id, position)
    inner join kpi.job_kpis as stored on job.trace_id = stored.trace_id
    order by stored.kpi_id asc, job.position desc
),

page as (
    select
        kpi.*,
        count(*) over () as total
    from kpi
    where strpos(lower(kpi.kpi_id || ' ' || kpi.name), lower(%(search)s)) > 0
    order by kpi.kpi_id
    limit %(limit)s offset %(offset)s
)

select
    page.kpi_id,
    page.name,
    page.type,
    page.report_back,
    page.total,
    array(
        select
            case
                when stored.kpi_id is not null
                    then jsonb_build_object(
                        'status', stored.status, 'error', stored.error, 'retryCount', stored.retry_count
                    )
            end
        from unnest(%(trace_ids)s::text[]) with ordinality as job (trace_id, position)
        left join kpi.job_kpis as stored on job.trace_id = stored.trace_id and page.kpi_id = stored.kpi_id
        order by job.position
    ) as cells
from page
order by page.kpi_id
