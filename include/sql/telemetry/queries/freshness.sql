-- Called by aggregator.alerts.freshness. Returns the end of the last UTC day with rollups, and the first later day that
-- has events. It searches three days back. Rows dated before 1970 or after %(now)s are errors of the source and do not
-- count.
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
