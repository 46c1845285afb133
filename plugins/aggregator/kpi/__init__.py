"""KPI dispatch: the registry, the job records, and the tasks that send KPIs to n8n (spec: KPI dispatch)."""

WORKER = "scheduler-worker"
"""Name of this service in the product's JSON."""
