"""
### What
Counts the emails of each campaign per UTC day: sent, delivered, opened, clicked, bounced, complained and unsubscribed,
and the distinct contacts that opened and clicked. It reads `analytics.contact_activity` and writes
`analytics.campaign_daily_stats`. An event belongs to a campaign if its `event_source` is a UUID. Other events are left
out. Message of the former queue: `analytics.generate-daily-reports`.

### Window
The UTC day of the run's logical date. The run of 2026-11-15 fires on 2026-11-16 at 02:00 and covers 2026-11-15.

### Re-run
Safe at any time: clear the run, or backfill days. A re-run also counts late events. Equal rows are not rewritten. If
all events of a campaign on that day were deleted, its row is kept. Delete such rows by hand.
An organization whose rows cannot be computed or stored is named in the error. The others are stored. Fix the cause and
clear the run.
While `ENABLE_ANALYTICS_CRON` is false, scheduled runs are skipped. Clear them after the pause.

### Deadline
03:00.

### Owner
analytics
"""

from __future__ import annotations

from airflow.sdk import DAG

from aggregator.postgres.operators import SqlUpsertOperator
from aggregator.wiring import dag_args

with DAG(**dag_args("analytics_daily_reports"), doc_md=__doc__, max_active_runs=3):
    SqlUpsertOperator(
        task_id="report_campaigns",
        conn_id="analytics_db",
        sql="analytics/queries/campaign_daily_stats.sql",
        stored="analytics/queries/stored_campaign_daily_stats.sql",
        table="analytics.campaign_daily_stats",
        key=["campaign_id", "organization_id", "date"],
        isolate_by="organization_id",
        groups="analytics/queries/organizations_with_activity.sql",
    )
