-- Called by aggregator.alerts.freshness. Returns the end of the last aggregated UTC day, and the first later hour that
-- has events. It searches three days back. Rows dated before 1970 or after %(now)s are errors of the source and do not
-- count.
with stored as (
    -- The current day has rows before its end.
    select
        case
            when max(date) is not null then least(max(date) + 1, %(now)s::timestamptz at time zone 'UTC')
        end as newest
    from analytics.event_aggregates
    where
        channel is null
        and date >= '1970-01-01'
        and date <= (%(now)s::timestamptz at time zone 'UTC')::date
)

select
    stored.newest at time zone 'UTC' as newest,
    date_trunc('hour', waiting.created_at) at time zone 'UTC' as waiting_since
from stored
left join lateral (
    select source.created_at
    from analytics.contact_activity as source
    where
        source.created_at
        >= greatest(stored.newest, (%(now)s::timestamptz at time zone 'UTC') - interval '3 days')
        and source.created_at < %(now)s::timestamptz at time zone 'UTC'
        and source.organization_id is not null
        and source.event_type is not null
    order by source.created_at
    limit 1
) as waiting on true
