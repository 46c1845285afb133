-- Called by aggregator.alerts.freshness. When the newest job record was made; there is one every day. Records dated
-- outside 1970 to now are errors and count for nothing.
select
    max(created_at) as newest,
    max(created_at) as waiting_since
from kpi.jobs
where created_at >= '1970-01-01 00:00+00' and created_at <= %(now)s
