-- Called by aggregator.alerts.freshness. Up to when enrichment is measured, and the first day after it that has jobs.
-- No further back than three days: as long as data comes in, that shows it.
with stored as (
    select max(date) + 1 as newest
    from analytics.enrichment_metrics
)

select
    stored.newest::timestamp at time zone 'UTC' as newest,
    date_trunc('day', waiting.created_at) at time zone 'UTC' as waiting_since
from stored
left join lateral (
    select source.created_at
    from lead_intelligence.enrichment_jobs as source
    where
        source.created_at >= greatest(stored.newest, (now() at time zone 'UTC') - interval '3 days')
        and source.organization_id is not null
    order by source.created_at
    limit 1
) as waiting on true
