-- Called by aggregator.kpi.jobs. The key of the last request of a KPI.
select stored.idempotency_key
from kpi.job_kpis as stored
where stored.trace_id = %(trace_id)s and stored.kpi_id = %(kpi_id)s
