"""
### What
Events per type of one UTC day, from `public.telemetry` into `public.telemetry_daily`: `count` is the number of events,
`unique_users` that of users, `value_sum` the sum of `value` (null and 0 count as 1), and `meta` the metas that are
objects, merged in the order of `created_at` and `id`; of equal fields the last one stays.
An event type that cannot be computed or written is reported in `errors`. All others are stored, then the task fails.

### Window
The UTC day of the run's logical date: the run of 2026-11-15 fires on 2026-11-16 at 02:00 and covers 2026-11-15.
A run with the params `startDate` and `endDate` (both inclusive, 366 days at most; one alone is that day) covers these
days instead. `dryRun` gives the same result, counts what would be `inserted`, `updated` and `unchanged`, and writes
nothing.

### Re-run
Safe at any time: clear the run, backfill, or start one with a range. Equal rows are not rewritten, late events are
added, and days without events keep the rows they have. `GET` and `POST /api/jobs/telemetry-daily` start a run, too.

### Deadline
03:00.

### Owner
telemetry
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from aggregator.telemetry.operators import TelemetryDailyOperator
from aggregator.wiring import dag_args

with DAG(
    **dag_args("telemetry_daily"),
    doc_md=__doc__,
    max_active_runs=3,
    params={
        "startDate": Param(None, type=["null", "string"], format="date", description="First UTC day; empty: the run's"),
        "endDate": Param(None, type=["null", "string"], format="date", description="Last UTC day; empty: the first"),
        "dryRun": Param(default=False, type="boolean", description="Compute everything, write nothing"),
    },
):
    TelemetryDailyOperator(
        task_id="roll_up_telemetry",
        conn_id="telemetry_db",
        sql="telemetry/queries/daily_rollups.sql",
        event_types="telemetry/queries/event_types.sql",
        stored="telemetry/queries/stored_rollups.sql",
        table="public.telemetry_daily",
    )
