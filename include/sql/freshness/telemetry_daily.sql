-- Called by aggregator.alerts.freshness. Up to when telemetry is rolled up, and the first day after it that has
-- events. No further back than three days: as long as data comes in, that shows it.
with stored as (
    select (max(date) + 1)::timestamp at time zone 'UTC' as newest
    from public.telemetry_daily
)

select
    stored.newest,
    date_trunc('day', waiting.created_at at time zone 'UTC') at time zone 'UTC' as waiting_since
from stored
left join lateral (
    select source.created_at
    from public.telemetry as source
    where
        source.created_at >= greatest(stored.newest, now() - interval '3 days')
        and source.event is not null
    order by source.created_at
    limit 1
) as waiting on true
