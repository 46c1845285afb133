-- Called by telemetry_daily. Result: the number of stored rollups of a range of UTC days.
select count(*) as stored
from public.telemetry_daily
where date between %(first_day)s::date and %(last_day)s::date
