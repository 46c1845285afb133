"""
### What
Clicks per hire of one UTC day, from the Analytics Engine dataset `clicks` into `public.click_rollups`, for billing.
Valid and invalid clicks are sums of `_sample_interval`, the number of clicks that a stored one stands for.
Clicks of hires that are not in `public.hires` are left out; the log says how many hires, and names them.

### Window
The UTC day of the run's logical date: the run of 2026-11-15 fires on 2026-11-16 at 01:00 and covers 2026-11-15.

### Re-run
Safe at any time: clear the run, or backfill days of the last three months (Analytics Engine keeps no more; older days
are refused). A day is written in one transaction. Equal rows are not rewritten, and a day for which Analytics Engine
answers with nothing keeps the rows it has.

A hire whose counts do not fit the columns (more than 2,147,483,647 clicks) is named in the error, and all others are
stored.

A re-run can replace a count by a coarser estimate, unless `index1` of the dataset is the hire. Analytics Engine samples
on write and on read, per `index1`. How much it samples on read depends on the amount of data at that time.

### Deadline
02:00, when billing reads the table.

### Owner
clicks
"""

from __future__ import annotations

from airflow.sdk import DAG

from aggregator.analytics_engine.transfer import AnalyticsEngineToPostgresOperator
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
