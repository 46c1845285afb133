-- Called by aggregator.alerts.freshness. When the newest job record was made; there is one every day.
select
    max(created_at) as newest,
    max(created_at) as waiting_since
from kpi.jobs
