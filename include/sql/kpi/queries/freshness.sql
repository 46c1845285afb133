-- Called by aggregator.alerts.freshness. Returns the creation time of the newest job record, twice: every day has one.
-- Records dated before 1970 or after %(now)s are errors and do not count.
select
    max(created_at) as newest,
    max(created_at) as waiting_since
from kpi.jobs
where created_at >= '1970-01-01 00:00+00' and created_at <= %(now)s
