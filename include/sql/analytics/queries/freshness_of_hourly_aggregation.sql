-- Called by aggregator.alerts.freshness. Returns the end of the last aggregated UTC day, and the first later hour that
-- has events, of the last three days. Rows dated before 1970 or after %(now)s are errors and do not count.
with stored as (
    select
        max(date) + 1 as next_day,
        %(now)s::timestamptz at time zone 'UTC' as now
    from analytics.event_aggregates
    where
        channel is null
        and date >= '1970-01-01'
        and date <= (%(now)s::timestamptz at time zone 'UTC')::date
)

select
    -- The current day has rows before its end. `least` skips null, which is the end of no day.
    case when stored.next_day is not null then least(stored.next_day, stored.now) end at time zone 'UTC' as newest,
    (
        select date_trunc('hour', min(source.created_at)) at time zone 'UTC'
        from analytics.contact_activity as source
        where
            source.created_at
            >= greatest(least(stored.next_day, stored.now), stored.now - interval '3 days')
            and source.created_at < stored.now
            and source.organization_id is not null
            and source.event_type is not null
    ) as waiting_since
from stored
