-- Called by aggregator.kpi.jobs.idempotency_key. Returns the key of a KPI's last request.
select stored.idempotency_key
from kpi.job_kpis as stored
where stored.trace_id = %(trace_id)s and stored.kpi_id = %(kpi_id)s
