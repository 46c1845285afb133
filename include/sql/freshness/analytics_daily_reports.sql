-- Called by aggregator.alerts.freshness. Up to when mails are reported, and the first day after it that has mails. No
-- further back than three days: as long as data comes in, that shows it.
with stored as (
    select max(date) + 1 as newest
    from analytics.campaign_daily_stats
)

select
    stored.newest::timestamp at time zone 'UTC' as newest,
    date_trunc('day', waiting.created_at) at time zone 'UTC' as waiting_since
from stored
left join lateral (
    select source.created_at
    from analytics.contact_activity as source
    where
        source.created_at >= greatest(stored.newest, (now() at time zone 'UTC') - interval '3 days')
        and source.organization_id is not null
        and source.event_type = 'email_sent'
        and source.event_source ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
    order by source.created_at
    limit 1
) as waiting on true
