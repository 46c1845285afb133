-- Called by aggregator.alerts.freshness. Up to when clicks are rolled up; every day has clicks.
select
    (max(day) + 1)::timestamp at time zone 'UTC' as newest,
    (max(day) + 1)::timestamp at time zone 'UTC' as waiting_since
from public.click_rollups
