"""
### What
Average, extremes and percentiles (interpolated, rounded half up) of the lead scores of each organisation: a snapshot of
`scoring.lead_scores` into `analytics.daily_score_distribution`. Earlier scores are kept nowhere, so a snapshot is dated
with the UTC day on which it is taken, whichever run takes it.
The queue's message was `analytics.score-distribution`.

### Window
The UTC day before, by which the run is known; the scores are those of the moment it runs. The run of 2026-11-15 fires
on 2026-11-16 at 04:00, and its snapshot is dated 2026-11-16.

### Re-run
Clearing today's run takes today's snapshot again. A run of an older day, cleared or backfilled, changes no row that is
stored: it takes today's snapshot for organisations that have none today. The snapshot of a day that was missed is lost.
An organization whose rows cannot be computed or stored is named in the error; all others are stored. Fix the cause and
clear the run.
While `ENABLE_ANALYTICS_CRON` is false, scheduled runs are skipped; clear them after the pause.

### Deadline
05:00.

### Owner
analytics
"""

from __future__ import annotations

from airflow.sdk import DAG

from aggregator.postgres.operators import SqlUpsertOperator
from aggregator.wiring import dag_args

with DAG(**dag_args("analytics_score_distribution"), doc_md=__doc__, max_active_runs=1):
    SqlUpsertOperator(
        task_id="snapshot_scores",
        conn_id="analytics_db",
        sql="analytics/queries/score_distribution.sql",
        stored="analytics/queries/stored_score_distribution.sql",
        table="analytics.daily_score_distribution",
        key=["organization_id", "date"],
        isolate_by="organization_id",
        groups="analytics/queries/organizations_with_scores.sql",
    )
