-- Called by aggregator.web.operations.analytics. Returns a page of the organizations with data.
with organization as (
    select organization_id from analytics.event_aggregates
    union distinct
    select organization_id from analytics.campaign_daily_stats
    union distinct
    select organization_id from analytics.daily_score_distribution
    union distinct
    select organization_id from analytics.enrichment_metrics
)

select
    organization_id,
    count(*) over () as total
from organization
order by organization_id
limit %(limit)s offset %(offset)s
