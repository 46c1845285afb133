-- Called by aggregator.alerts.freshness. Returns the end of the last UTC day with rollups, twice: every day has clicks.
-- Rows dated before 1970 or after %(now)s are errors and do not count.
select
    (max(day) + 1)::timestamp at time zone 'UTC' as newest,
    (max(day) + 1)::timestamp at time zone 'UTC' as waiting_since
from public.click_rollups
where day >= '1970-01-01' and day < (%(now)s::timestamptz at time zone 'UTC')::date
