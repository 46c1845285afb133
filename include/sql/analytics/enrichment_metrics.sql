-- Called by analytics_enrichment_metrics. Of the enrichment jobs created in the window, a UTC day: how many completed,
-- in number and per cent, what they cost on average (jobs without a cost aside; 0 if none has one), and how fresh the
-- completed ones are at the window's end: from 1, just completed, to 0, 90 days ago or more (0 if none completed).
select
    organization_id,
    (%(data_interval_start)s::timestamptz at time zone 'UTC')::date as date,
    count(*) filter (where status = 'completed') as total_enriched,
    round(100.0 * count(*) filter (where status = 'completed') / count(*), 2) as success_rate,
    coalesce(round(avg(total_cost), 4), 0) as avg_cost,
    coalesce(round(avg(
        greatest(0, 1 - extract(
            epoch from
            -- A job may complete after the window: then it is as fresh as can be.
            greatest((%(data_interval_end)s::timestamptz at time zone 'UTC') - completed_at, interval '0')
        ) / 86400 / 90)
    ) filter (where status = 'completed' and completed_at is not null), 2), 0) as avg_freshness
from lead_intelligence.enrichment_jobs
where
    created_at >= (%(data_interval_start)s::timestamptz at time zone 'UTC')
    and created_at < (%(data_interval_end)s::timestamptz at time zone 'UTC')
    and organization_id is not null
group by organization_id
