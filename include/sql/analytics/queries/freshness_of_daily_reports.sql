-- Called by aggregator.alerts.freshness. Returns the end of the last UTC day with a report, and the first later day
-- that has emails. It searches three days back. Rows dated before 1970 or after %(now)s are errors of the source and do
-- not count.
with stored as (
    select (max(date) + 1)::timestamp as newest
    from analytics.campaign_daily_stats
    where date >= '1970-01-01' and date < (%(now)s::timestamptz at time zone 'UTC')::date
)

select
    stored.newest at time zone 'UTC' as newest,
    date_trunc('day', waiting.created_at) at time zone 'UTC' as waiting_since
from stored
left join lateral (
    select source.created_at
    from analytics.contact_activity as source
    where
        source.created_at
        >= greatest(stored.newest, (%(now)s::timestamptz at time zone 'UTC') - interval '3 days')
        and source.created_at <= %(now)s::timestamptz at time zone 'UTC'
        and source.organization_id is not null
        and source.event_type = 'email_sent'
        and source.event_source ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
    order by source.created_at
    limit 1
) as waiting on true
