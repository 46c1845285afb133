"""KPI dispatch: which KPIs there are, and what became of each (spec: KPI dispatch)."""
