-- Called by aggregator.alerts.freshness. Returns the end of the last UTC month with a summary, and the first later
-- month that has events. Rows dated before 1970 or after %(now)s are errors and do not count.
with stored as (
    select
        max(date) + interval '1 month' as next_month,
        %(now)s::timestamptz at time zone 'UTC' as now
    from analytics.event_aggregates
    where
        channel = 'monthly_summary'
        and date >= '1970-01-01'
        and date < date_trunc('month', %(now)s::timestamptz at time zone 'UTC')
)

select
    stored.next_month at time zone 'UTC' as newest,
    (
        select date_trunc('month', min(source.created_at)) at time zone 'UTC'
        from analytics.contact_activity as source
        where
            source.created_at >= stored.next_month
            and source.created_at <= stored.now
            and source.organization_id is not null
            and source.event_type is not null
    ) as waiting_since
from stored
