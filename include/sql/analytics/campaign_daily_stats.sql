-- Called by analytics_daily_reports. What became of the mails of each campaign in the window, a UTC day. An event's
-- source is its campaign if it is a UUID; other sources are forms, pages and imports.
with mails as (
    select
        organization_id,
        event_type,
        contact_id,
        -- The cast has to wait for the test, which a condition beside it would not make sure of.
        case
            when event_source ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
                then event_source::uuid
        end as campaign_id
    from analytics.contact_activity
    where
        created_at >= (%(data_interval_start)s::timestamptz at time zone 'UTC')
        and created_at < (%(data_interval_end)s::timestamptz at time zone 'UTC')
        and event_type in (
            'email_sent', 'email_delivered', 'email_opened', 'email_clicked', 'email_bounced', 'email_complained',
            'email_unsubscribed'
        )
        and organization_id is not null
)

select
    campaign_id,
    organization_id,
    (%(data_interval_start)s::timestamptz at time zone 'UTC')::date as date,
    count(*) filter (where event_type = 'email_sent') as sent,
    count(*) filter (where event_type = 'email_delivered') as delivered,
    count(*) filter (where event_type = 'email_opened') as opened,
    count(distinct contact_id) filter (where event_type = 'email_opened') as unique_opened,
    count(*) filter (where event_type = 'email_clicked') as clicked,
    count(distinct contact_id) filter (where event_type = 'email_clicked') as unique_clicked,
    count(*) filter (where event_type = 'email_bounced') as bounced,
    count(*) filter (where event_type = 'email_complained') as complained,
    count(*) filter (where event_type = 'email_unsubscribed') as unsubscribed
from mails
where campaign_id is not null
group by campaign_id, organization_id
