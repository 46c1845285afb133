-- Called by analytics_monthly_usage. How many rows the window, a UTC month, has.
select count(*) as stored
from analytics.event_aggregates
where
    date = (%(data_interval_start)s::timestamptz at time zone 'UTC')::date
    and channel = 'monthly_summary'
