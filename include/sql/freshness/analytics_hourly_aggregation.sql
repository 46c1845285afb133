-- Called by aggregator.alerts.freshness. Up to which day events are aggregated, and the first hour after it that has
-- events. No further back than three days: as long as data comes in, that shows it.
with stored as (
    select max(date) + 1 as newest
    from analytics.event_aggregates
    where channel is null
)

select
    stored.newest::timestamp at time zone 'UTC' as newest,
    date_trunc('hour', waiting.created_at) at time zone 'UTC' as waiting_since
from stored
left join lateral (
    select source.created_at
    from analytics.contact_activity as source
    where
        source.created_at >= greatest(stored.newest, (now() at time zone 'UTC') - interval '3 days')
        and source.organization_id is not null
        and source.event_type is not null
    order by source.created_at
    limit 1
) as waiting on true
