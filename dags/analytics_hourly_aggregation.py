"""
### What
Counts the events and the distinct contacts of each organization per UTC day and event type. It reads
`analytics.contact_activity` and writes `analytics.event_aggregates`, with `channel` null. Every run computes the whole
day and sets the counts; it never adds to them. An event without a contact counts as an event only. An event without an
organization or a type is left out. Message of the former queue: `analytics.aggregate-hourly`.

### Window
The hour of the run's logical date, and the whole UTC day of that hour. The run of 2026-11-15 14:00 fires at 15:00 and
sets the counts of 2026-11-15.

### Re-run
Safe at any time: any run of a day sets the counts of the whole day, including late events. Events of the day's last
hour that are stored after midnight need such a re-run. Equal rows are not rewritten. If all events of a row were
deleted, the row is kept. Delete such rows by hand.
An organization whose rows cannot be computed or stored is named in the error. The others are stored. Fix the cause and
clear the run.
While `ENABLE_ANALYTICS_CRON` is false, scheduled runs are skipped. Clear them after the pause.

### Deadline
15 minutes past the hour.

### Owner
analytics
"""

from __future__ import annotations

from airflow.sdk import DAG

from aggregator.postgres.operators import SqlUpsertOperator
from aggregator.wiring import dag_args

with DAG(**dag_args("analytics_hourly_aggregation"), doc_md=__doc__, max_active_runs=1):
    SqlUpsertOperator(
        task_id="aggregate_events",
        conn_id="analytics_db",
        sql="analytics/queries/event_aggregates.sql",
        stored="analytics/queries/stored_event_aggregates.sql",
        table="analytics.event_aggregates",
        key=["organization_id", "date", "event_type", "channel"],
        isolate_by="organization_id",
        groups="analytics/queries/organizations_with_activity.sql",
    )
