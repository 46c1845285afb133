"""KPI dispatch: which KPIs there are, and what became of each (spec: KPI dispatch)."""

WORKER = "scheduler-worker"
"""What the product calls this part of it."""
