-- Called by analytics_monthly_usage. Returns events and distinct contacts by organization and type in the window, a UTC
-- month. The stored type has at most 100 characters. A type that is too long for the prefix is cut, and a digest of the
-- whole type is appended, so that two long types stay distinct.
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
        -- The product's own table allows null in these columns. Such events are left out.
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
