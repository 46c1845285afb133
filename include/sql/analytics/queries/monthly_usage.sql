-- Called by analytics_monthly_usage. Events and distinct contacts per organisation and type of the window, a UTC month.
-- The stored type has 100 characters at most. Of a type that has no room behind the prefix, as much as fits is followed
-- by a digest of the whole, so that two long types never become one.
with per_contact as (
    select
        organization_id,
        event_type,
        contact_id,
        count(*) as events
    from analytics.contact_activity
    where
        created_at >= (%(data_interval_start)s::timestamptz at time zone 'UTC')
        and created_at < (%(data_interval_end)s::timestamptz at time zone 'UTC')
        -- The columns can be null where the product made the table; such an event belongs to no row.
        and organization_id is not null
        and event_type is not null
        and (%(groups)s::text[] is null or organization_id::text = any(%(groups)s::text[]))
    group by organization_id, event_type, contact_id
)

select
    organization_id,
    (%(data_interval_start)s::timestamptz at time zone 'UTC')::date as date,
    'monthly:' || case
        when length(event_type) <= 92 then event_type
        else left(event_type, 59) || '~' || left(encode(sha256(convert_to(event_type, 'UTF8')), 'hex'), 32)
    end as event_type,
    'monthly_summary' as channel,
    sum(events) as count,
    count(contact_id) as unique_count
from per_contact
group by organization_id, event_type
