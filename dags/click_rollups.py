"""
### What
Counts the clicks of each hire in one UTC day, for billing: from the Analytics Engine dataset `clicks` into
`public.click_rollups`. Valid and invalid clicks are sums of `_sample_interval`, the number of clicks that one stored
click represents. Hires that are not in `public.hires` are skipped. The task's log counts and names them.

### Window
The UTC day of the run's logical date: the run of 2026-11-15 starts on 2026-11-16 at 01:00.

### Re-run
Safe at any time. Clear the run, or backfill days of the last three months. Analytics Engine keeps no more, so a run for
an earlier day fails. One transaction writes a day. Equal rows are not rewritten. A day without clicks in Analytics
Engine keeps its stored rows.

A re-run can store less exact counts, because Analytics Engine samples. `docs/products/clicks.md` explains when.

If a hire has more clicks than the columns hold (2,147,483,647), all other hires are stored. Then the task fails and
names that hire.

### Deadline
02:00, when billing reads the table.

### Owner
clicks
"""

from __future__ import annotations

from airflow.sdk import DAG

from aggregator.analytics_engine.operators import AnalyticsEngineToPostgresOperator
from aggregator.wiring import dag_args

with DAG(**dag_args("click_rollups"), doc_md=__doc__, max_active_runs=3):
    AnalyticsEngineToPostgresOperator(
        task_id="roll_up_clicks",
        sql="clicks/queries/analytics_engine/clicks_per_hire.sql",
        select="clicks/queries/rollups.sql",
        skipped="clicks/queries/unknown_hires.sql",
        stored="clicks/queries/stored_rollups.sql",
        postgres_conn_id="clicks_db",
        table="public.click_rollups",
        key=["day", "hire_id"],
        touch=["updated_at"],
        isolate_by="hire_id",
    )
