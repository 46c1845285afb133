"""
### What
Events of each organisation and type on a UTC day, and how many distinct contacts they come from: from
`analytics.contact_activity` into `analytics.event_aggregates` (`channel` is null). A day is counted anew every hour and
set to the result, never added to. An event without a contact counts, but not as a contact; one without an organisation
or a type is left out.
The queue's message was `analytics.aggregate-hourly`.

### Window
The hour of the run's logical date, and with it the whole UTC day around it: the run of 2026-11-15 14:00 fires at 15:00
and sets 2026-11-15 to what the day has by then.

### Re-run
Safe at any time: one run of a day, whichever hour, sets the whole day to what is stored now, late events included.
Events of a day's last hour that are stored after midnight need such a run. Equal rows are not rewritten. Rows of which
all events were deleted since are kept as they are: delete those by hand.
An organization whose rows cannot be computed or stored is named in the error; all others are stored. Fix the cause and
clear the run.
While `ENABLE_ANALYTICS_CRON` is false, scheduled runs are skipped; clear them after the pause.

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
