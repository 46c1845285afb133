-- Called by aggregator.alerts.freshness. Returns the end of the last UTC day with rollups, and the first later day that
-- has events, of the last three days. Rows dated before 1970 or after %(now)s are errors and do not count.
with stored as (
    select
        (max(date) + 1)::timestamp at time zone 'UTC' as newest,
        %(now)s::timestamptz as now
    from public.telemetry_daily
    where date >= '1970-01-01' and date < (%(now)s::timestamptz at time zone 'UTC')::date
)

select
    stored.newest,
    (
        select date_trunc('day', min(source.created_at), 'UTC')
        from public.telemetry as source
        where
            source.created_at >= greatest(stored.newest, stored.now - interval '3 days')
            and source.created_at <= stored.now
            and source.event is not null
    ) as waiting_since
from stored
