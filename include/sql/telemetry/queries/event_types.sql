-- Called by telemetry_daily when daily_rollups.sql fails. Result: the event types of a range of UTC days.
select distinct event
from public.telemetry
where
    created_at >= %(first_day)s::date::timestamp at time zone 'UTC'
    and created_at < (%(last_day)s::date + 1)::timestamp at time zone 'UTC'
    and event is not null
order by event
