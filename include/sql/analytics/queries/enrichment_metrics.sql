-- Called by analytics_enrichment_metrics. Returns metrics of the enrichment jobs created in the window, a UTC day:
-- - total_enriched: number of completed jobs; success_rate: their share of all jobs, in percent.
-- - avg_cost: average of total_cost, without null and NaN; 0 if no job has a cost.
-- - avg_freshness: average over the completed jobs at the end of the window, from 1 (just completed) to 0 (at least 90
--   days ago); 0 if no job completed.
with day as (
    select %(data_interval_end)s::timestamptz at time zone 'UTC' as ends_at
),

jobs as (
    select
        job.organization_id,
        nullif(job.total_cost::numeric, 'NaN') as cost,
        job.status = 'completed' as is_completed,
        case
            when job.status = 'completed' and job.completed_at is not null
                -- Limited before the subtraction: completed_at can be after the window, or infinite.
                then extract(epoch from day.ends_at - least(
                    greatest(job.completed_at, day.ends_at - interval '90 days'), day.ends_at
                ))
        end as age_in_seconds
    from lead_intelligence.enrichment_jobs as job
    cross join day
    where
        job.created_at >= (%(data_interval_start)s::timestamptz at time zone 'UTC')
        and job.created_at < (%(data_interval_end)s::timestamptz at time zone 'UTC')
        and job.organization_id is not null
        and (%(groups)s::text[] is null or job.organization_id::text = any(%(groups)s::text[]))
)

select
    organization_id,
    (%(data_interval_start)s::timestamptz at time zone 'UTC')::date as date,
    count(*) filter (where is_completed) as total_enriched,
    round(100.0 * count(*) filter (where is_completed) / count(*), 2) as success_rate,
    coalesce(round(avg(cost), 4), 0) as avg_cost,
    coalesce(round(1 - avg(age_in_seconds) / (90 * 86400), 2), 0) as avg_freshness
from jobs
group by organization_id
