-- Called by analytics_hourly_aggregation, analytics_daily_reports and analytics_monthly_usage when their query fails.
-- Returns the organizations with activity on the UTC days that the window touches.
select distinct organization_id::text
from analytics.contact_activity
where
    created_at >= date_trunc('day', %(data_interval_start)s::timestamptz at time zone 'UTC')
    and created_at < date_trunc(
        'day', (%(data_interval_end)s::timestamptz at time zone 'UTC') - interval '1 microsecond'
    ) + interval '1 day'
    and organization_id is not null
order by organization_id
