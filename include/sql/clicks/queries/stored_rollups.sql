-- Called by click_rollups. How many rollups the run's day has.
select count(*) as stored
from public.click_rollups
where day = (%(data_interval_start)s::timestamptz at time zone 'UTC')::date
