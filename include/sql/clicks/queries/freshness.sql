-- Called by aggregator.alerts.freshness. The end of the last UTC day whose clicks are rolled up; every day has clicks.
-- Rows dated outside 1970 to now are errors and count for nothing.
select
    (max(day) + 1)::timestamp at time zone 'UTC' as newest,
    (max(day) + 1)::timestamp at time zone 'UTC' as waiting_since
from public.click_rollups
where day >= '1970-01-01' and day < (%(now)s::timestamptz at time zone 'UTC')::date
