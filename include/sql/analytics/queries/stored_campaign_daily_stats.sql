-- Called by analytics_daily_reports. Returns the number of stored rows of the window, a UTC day.
select count(*) as stored
from analytics.campaign_daily_stats
where date = (%(data_interval_start)s::timestamptz at time zone 'UTC')::date
