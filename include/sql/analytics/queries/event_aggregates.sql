-- Called by analytics_hourly_aggregation. Returns events and distinct contacts by organization, UTC day and type, for
-- the whole days that the window touches. Every run of a day returns the same rows for the same events.
with per_contact as (
    select
        organization_id,
        created_at::date as date,
        event_type,
        contact_id,
        count(*) as events
    from analytics.contact_activity
    where
        created_at >= date_trunc('day', %(data_interval_start)s::timestamptz at time zone 'UTC')
        and created_at < date_trunc(
            'day', (%(data_interval_end)s::timestamptz at time zone 'UTC') - interval '1 microsecond'
        ) + interval '1 day'
        -- The product's own table allows null in these columns. Such events are left out.
        and organization_id is not null
        and event_type is not null
        and (%(groups)s::text[] is null or organization_id::text = any(%(groups)s::text[]))
    group by organization_id, created_at::date, event_type, contact_id
)

select
    organization_id,
    date,
    event_type,
    null::varchar as channel,
    sum(events) as count,
    count(contact_id) as unique_count
from per_contact
group by organization_id, date, event_type
