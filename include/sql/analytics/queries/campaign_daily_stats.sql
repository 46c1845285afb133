-- Called by analytics_daily_reports. Returns the email counts of each campaign in the window, a UTC day.
-- An event belongs to a campaign if its event_source is a UUID; other sources are forms, pages and imports.
with per_source as (
    select
        organization_id,
        event_source,
        event_type,
        contact_id,
        count(*) as events
    from analytics.contact_activity
    where
        created_at >= (%(data_interval_start)s::timestamptz at time zone 'UTC')
        and created_at < (%(data_interval_end)s::timestamptz at time zone 'UTC')
        and event_type in (
            'email_sent', 'email_delivered', 'email_opened', 'email_clicked', 'email_bounced', 'email_complained',
            'email_unsubscribed'
        )
        and organization_id is not null
        and (%(groups)s::text[] is null or organization_id::text = any(%(groups)s::text[]))
    group by organization_id, event_source, event_type, contact_id
),

-- Each source is tested once. Testing the source of every event took most of the time.
campaigns as materialized (
    select
        event_source,
        -- Only `case` guarantees that the test runs before the cast.
        case
            when event_source ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
                then event_source::uuid
        end as campaign_id
    from (select distinct event_source from per_source) as sources
),

-- Grouping by contact is faster than count(distinct), which sorts all events. The second grouping merges one UUID in
-- lower and upper case.
per_contact as (
    select
        campaigns.campaign_id,
        per_source.organization_id,
        per_source.event_type,
        per_source.contact_id,
        sum(per_source.events) as events
    from per_source
    inner join campaigns on per_source.event_source = campaigns.event_source
    where campaigns.campaign_id is not null
    group by campaigns.campaign_id, per_source.organization_id, per_source.event_type, per_source.contact_id
)

select
    campaign_id,
    organization_id,
    (%(data_interval_start)s::timestamptz at time zone 'UTC')::date as date,
    coalesce(sum(events) filter (where event_type = 'email_sent'), 0) as sent,
    coalesce(sum(events) filter (where event_type = 'email_delivered'), 0) as delivered,
    coalesce(sum(events) filter (where event_type = 'email_opened'), 0) as opened,
    count(contact_id) filter (where event_type = 'email_opened') as unique_opened,
    coalesce(sum(events) filter (where event_type = 'email_clicked'), 0) as clicked,
    count(contact_id) filter (where event_type = 'email_clicked') as unique_clicked,
    coalesce(sum(events) filter (where event_type = 'email_bounced'), 0) as bounced,
    coalesce(sum(events) filter (where event_type = 'email_complained'), 0) as complained,
    coalesce(sum(events) filter (where event_type = 'email_unsubscribed'), 0) as unsubscribed
from per_contact
group by campaign_id, organization_id
