-- Called by analytics_daily_reports. How many rows the window, a UTC day, has.
select count(*) as stored
from analytics.campaign_daily_stats
where date = (%(data_interval_start)s::timestamptz at time zone 'UTC')::date
