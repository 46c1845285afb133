"""
### What
Of the enrichment jobs that each organisation created on a UTC day: how many completed (`total_enriched`), their share
of all in per cent (`success_rate`), the average of `total_cost` of the jobs that have one, and `avg_freshness` of the
completed ones at the day's end, from 1 (just completed) to 0 (90 days ago or more); from
`lead_intelligence.enrichment_jobs` into `analytics.enrichment_metrics`. Before this DAG the product stored 0 for cost
and freshness: backfill to mend old days.
The queue's message was `analytics.enrichment-metrics`.

### Window
The UTC day of the run's logical date: the run of 2026-11-15 fires on 2026-11-16 at 05:00 and covers 2026-11-15.

### Re-run
Safe at any time: clear the run, or backfill days; jobs that have completed since are counted then. Equal rows are not
rewritten. An organisation whose jobs of the day were all deleted since keeps its row as it is: delete that by hand.
An organization whose rows cannot be computed or stored is named in the error; all others are stored. Fix the cause and
clear the run.
While `ENABLE_ANALYTICS_CRON` is false, scheduled runs are skipped; clear them after the pause.

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
