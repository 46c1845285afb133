-- Called by analytics_hourly_aggregation. Returns the number of stored rows of the UTC days that the window touches.
select count(*) as stored
from analytics.event_aggregates
where
    date >= (%(data_interval_start)s::timestamptz at time zone 'UTC')::date
    and date <= ((%(data_interval_end)s::timestamptz at time zone 'UTC') - interval '1 microsecond')::date
    and channel is null
