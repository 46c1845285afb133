-- Called by aggregator.web.operations.kpi. Returns a page of the KPIs of the jobs %(trace_ids)s whose id or name
-- contains %(search)s, with the array cells of their results: null for a job without the KPI, in the order of the jobs.
with job as materialized (
    select
        unnested.trace_id,
        unnested.position
    from unnest(%(trace_ids)s::text[]) with ordinality as unnested (trace_id, position)
),

kpi as (
    select
        stored.kpi_id,
        max(job.position) as newest
    from job
    inner join kpi.job_kpis as stored on job.trace_id = stored.trace_id
    where %(search)s = '' or strpos(lower(stored.kpi_id || ' ' || stored.name), lower(%(search)s)) > 0
    group by stored.kpi_id
),

page as materialized (
    select
        kpi.*,
        count(*) over () as total
    from kpi
    order by kpi.kpi_id
    limit %(limit)s offset %(offset)s
),

ends as materialized (
    select
        min(kpi_id) as first,
        max(kpi_id) as last
    from page
),

-- One range of the index for each job.
result as materialized (
    select
        job.position,
        stored.*
    from job
    cross join ends
    inner join
        kpi.job_kpis as stored
        on job.trace_id = stored.trace_id and ends.first <= stored.kpi_id and ends.last >= stored.kpi_id
)

select
    page.kpi_id,
    min(result.name) filter (where result.position = page.newest) as name,
    min(result.type) filter (where result.position = page.newest) as type,
    bool_and(result.report_back) filter (where result.position = page.newest) as report_back,
    page.total,
    array_agg(
        case
            when result.kpi_id is not null
                then jsonb_build_object(
                    'status', result.status, 'error', result.error, 'retryCount', result.retry_count
                )
        end
        order by job.position
    ) as cells
from page
cross join job
left join result on page.kpi_id = result.kpi_id and job.position = result.position
group by page.kpi_id, page.total
order by page.kpi_id
