-- Called by aggregator.alerts.freshness. Returns the end of the last UTC month with a summary, and the first later
-- month that has events. Rows dated before 1970 or after %(now)s are errors of the source and do not count.
with stored as (
    select (max(date) + interval '1 month')::timestamp as newest
    from analytics.event_aggregates
    where
        channel = 'monthly_summary'
        and date >= '1970-01-01'
        and date < date_trunc('month', %(now)s::timestamptz at time zone 'UTC')
)

select
    stored.newest at time zone 'UTC' as newest,
    date_trunc('month', waiting.created_at) at time zone 'UTC' as waiting_since
from stored
left join lateral (
    select source.created_at
    from analytics.contact_activity as source
    where
        source.created_at >= stored.newest
        and source.created_at <= %(now)s::timestamptz at time zone 'UTC'
        and source.organization_id is not null
        and source.event_type is not null
    order by source.created_at
    limit 1
) as waiting on true
