"""
### What
Computes metrics of each organization's enrichment jobs per UTC day of creation. It reads
`lead_intelligence.enrichment_jobs` and writes `analytics.enrichment_metrics`:

- `total_enriched`: number of completed jobs.
- `success_rate`: completed jobs as a share of all jobs, in percent.
- `avg_cost`: average `total_cost` of the jobs that have one. `NaN` counts as no cost.
- `avg_freshness`: average over the completed jobs at the end of the day, from 1 (just completed) to 0 (at least 90 days
  ago).

Before this DAG, the product stored 0 as `avg_cost` and `avg_freshness`. Backfill to correct old days.
Message of the former queue: `analytics.enrichment-metrics`.

### Window
The UTC day of the run's logical date. The run of 2026-11-15 fires on 2026-11-16 at 05:00 and covers 2026-11-15.

### Re-run
Safe at any time: clear the run, or backfill days. A re-run also counts jobs that have completed since. Equal rows are
not rewritten. If all jobs of an organization on that day were deleted, its row is kept. Delete such rows by hand.
An organization whose rows cannot be computed or stored is named in the error. The others are stored. Fix the cause and
clear the run.
While `ENABLE_ANALYTICS_CRON` is false, scheduled runs are skipped. Clear them after the pause.

### Deadline
06:00.

### Owner
analytics
"""

from __future__ import annotations

from airflow.sdk import DAG

from aggregator.postgres.operators import SqlUpsertOperator
from aggregator.wiring import dag_args

with DAG(**dag_args("analytics_enrichment_metrics"), doc_md=__doc__, max_active_runs=3):
    SqlUpsertOperator(
        task_id="measure_enrichment",
        conn_id="analytics_db",
        sql="analytics/queries/enrichment_metrics.sql",
        stored="analytics/queries/stored_enrichment_metrics.sql",
        table="analytics.enrichment_metrics",
        key=["organization_id", "date"],
        isolate_by="organization_id",
        groups="analytics/queries/organizations_with_jobs.sql",
    )
