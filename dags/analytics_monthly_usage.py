"""
### What
Events of each organisation and type in a UTC month, and how many distinct contacts they come from: from
`analytics.contact_activity` into `analytics.event_aggregates`, dated with the first of the month, with the type
`monthly:<type>` and the channel `monthly_summary`. A type of more than 92 characters has no room behind the prefix: its
first 59 characters are followed by `~` and 32 hexadecimal digits of its SHA-256, so that two long types stay apart.
The queue's message was `analytics.monthly-usage-summary`.

### Window
The UTC month of the run's logical date: the run of 2026-11-01 fires on 2026-12-01 at 03:00 and covers November.

### Re-run
Safe at any time: clear the run, or backfill months; late events are counted then. Equal rows are not rewritten. Rows of
which all events were deleted since are kept as they are: where activity is deleted after a time, a run of a month that
is partly gone would store less than it has.
An organization whose rows cannot be computed or stored is named in the error; all others are stored. Fix the cause and
clear the run.
While `ENABLE_ANALYTICS_CRON` is false, scheduled runs are skipped; clear them after the pause.

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
