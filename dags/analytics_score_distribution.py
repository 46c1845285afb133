"""
### What
Stores a daily snapshot of each organization's lead scores: average, minimum, maximum, and interpolated percentiles,
rounded half up. It reads `scoring.lead_scores` and writes `analytics.daily_score_distribution`. Earlier scores are not
stored anywhere, so every snapshot has the UTC day on which it is taken. Message of the former queue:
`analytics.score-distribution`.

### Window
The run's data interval is the UTC day before. The scores are those at the time of the run. The run of 2026-11-15 fires
on 2026-11-16 at 04:00, and its snapshot has the date 2026-11-16.

### Re-run
Clear today's run to take today's snapshot again. A run of an older day changes no stored row: it only adds today's
snapshot of organizations that have none. The snapshot of a missed day cannot be recovered.
An organization whose rows cannot be computed or stored is named in the error. The others are stored. Fix the cause and
clear the run.
While `ENABLE_ANALYTICS_CRON` is false, scheduled runs are skipped. Clear them after the pause.

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
