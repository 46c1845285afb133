-- Called by aggregator.alerts.freshness. The end of the last UTC day whose telemetry is rolled up, and the first day
-- after it that has events, at most three days back. Rows dated outside 1970 to now are errors of their source and
-- count for nothing.
with stored as (
    select (max(date) + 1)::timestamp at time zone 'UTC' as newest
    from public.telemetry_daily
    where date >= '1970-01-01' and date < (%(now)s::timestamptz at time zone 'UTC')::date
)

select
    stored.newest,
    date_trunc('day', waiting.created_at at time zone 'UTC') at time zone 'UTC' as waiting_since
from stored
left join lateral (
    select source.created_at
    from public.telemetry as source
    where
        source.created_at >= greatest(stored.newest, %(now)s::timestamptz - interval '3 days')
        and source.created_at <= %(now)s
        and source.event is not null
    order by source.created_at
    limit 1
) as waiting on true
