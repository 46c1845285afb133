"""
### What
Rolls up the events of one UTC day by type, from `public.telemetry` into `public.telemetry_daily`:

- `count`: number of events.
- `unique_users`: number of distinct users.
- `value_sum`: sum of `value`, where null and 0 count as 1.
- `meta`: the fields of all `meta` objects. If two events have the same field, the later event wins.

If an event type cannot be computed or written, `errors` names it. All others are stored, then the task fails.

### Window
The UTC day of the run's logical date: the run of 2026-11-15 starts on 2026-11-16 at 02:00 and covers 2026-11-15.

The params `startDate` and `endDate` select other days instead. Both are inclusive, and one alone is a single day.
A run covers 366 days at most. `dryRun` returns the same result and counts, and writes nothing.

### Re-run
Safe at any time: clear the run, create a backfill, or start a run with a range. A re-run adds late events, does not
rewrite equal rows, and keeps the rows of days without events. `GET` and `POST /api/jobs/telemetry-daily` also start a
run.

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
