-- Called by click_rollups. The number of rollups stored for the run's day.
select count(*) as stored
from public.click_rollups
where day = (%(data_interval_start)s::timestamptz at time zone 'UTC')::date
