-- Called by aggregator.alerts.freshness. Returns the end of the last UTC day with a report, and the first later day
-- that has emails, of the last three days. Rows dated before 1970 or after %(now)s are errors and do not count.
with stored as (
    select
        max(date) + 1 as next_day,
        %(now)s::timestamptz at time zone 'UTC' as now
    from analytics.campaign_daily_stats
    where date >= '1970-01-01' and date < (%(now)s::timestamptz at time zone 'UTC')::date
)

select
    stored.next_day::timestamp at time zone 'UTC' as newest,
    (
        select date_trunc('day', min(source.created_at)) at time zone 'UTC'
        from analytics.contact_activity as source
        where
            source.created_at >= greatest(stored.next_day, stored.now - interval '3 days')
            and source.created_at <= stored.now
            and source.organization_id is not null
            and source.event_type = 'email_sent'
            and source.event_source ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
    ) as waiting_since
from stored
