"""
### What
Counts the events and the distinct contacts of each organization per UTC month and event type. It reads
`analytics.contact_activity` and writes `analytics.event_aggregates`, with the first day of the month, the type
`monthly:<type>` and the channel `monthly_summary`. The column holds 100 characters. A type of more than 92 characters
is shortened: its first 59 characters, `~`, and 32 hexadecimal digits of its SHA-256. Long types stay distinct.
Message of the former queue: `analytics.monthly-usage-summary`.

### Window
The UTC month of the run's logical date. The run of 2026-11-01 fires on 2026-12-01 at 03:00 and covers November.

### Re-run
Safe while the month's events exist: clear the run, or backfill months. A re-run also counts late events. Equal rows are
not rewritten. If all events of a row were deleted, the row is kept. Do not re-run a month whose events were partly
deleted: the run would store lower counts.
An organization whose rows cannot be computed or stored is named in the error. The others are stored. Fix the cause and
clear the run.
While `ENABLE_ANALYTICS_CRON` is false, scheduled runs are skipped. Clear them after the pause.

### Deadline
05:00 on the 1st.

### Owner
analytics
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from aggregator.postgres.operators import SqlUpsertOperator
from aggregator.wiring import dag_args

with DAG(
    **dag_args("analytics_monthly_usage", execution_timeout=timedelta(hours=1)), doc_md=__doc__, max_active_runs=1
):
    SqlUpsertOperator(
        task_id="summarize_usage",
        conn_id="analytics_db",
        sql="analytics/queries/monthly_usage.sql",
        stored="analytics/queries/stored_monthly_usage.sql",
        table="analytics.event_aggregates",
        key=["organization_id", "date", "event_type", "channel"],
        isolate_by="organization_id",
        groups="analytics/queries/organizations_with_activity.sql",
    )
