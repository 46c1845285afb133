-- Called by telemetry_daily. How many rollups a range of UTC days has.
select count(*) as stored
from public.telemetry_daily
where date between %(first_day)s::date and %(last_day)s::date
