-- Called by analytics_monthly_usage. Returns the number of stored rows of the window, a UTC month.
select count(*) as stored
from analytics.event_aggregates
where
    date = (%(data_interval_start)s::timestamptz at time zone 'UTC')::date
    and channel = 'monthly_summary'
