-- Called by analytics_enrichment_metrics. Of the enrichment jobs created in the window, a UTC day: how many completed,
-- in number and per cent, what they cost on average (jobs without a cost aside; 0 if none has one), and how fresh the
-- completed ones are at the window's end: from 1, just completed, to 0, 90 days ago or more (0 if none completed).
with day as (
    select %(data_interval_end)s::timestamptz at time zone 'UTC' as ends_at
),

jobs as (
    select
        job.organization_id,
        job.total_cost,
        job.status = 'completed' as is_completed,
        case
            when job.status = 'completed' and job.completed_at is not null
                -- Bounded before it is subtracted: a job may complete after the window, or at infinity.
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
    coalesce(round(avg(total_cost), 4), 0) as avg_cost,
    coalesce(round(1 - avg(age_in_seconds) / (90 * 86400), 2), 0) as avg_freshness
from jobs
group by organization_id
