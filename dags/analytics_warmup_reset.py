"""
### What
Resets the daily counters of sending domains that warm up: verified domains that are younger than 30 days. The counters
are rows of `delivery.warmup_counters`. If `WARMUP_COUNTER_STORE` is `r2`, they are objects
`warmup/daily/{organization}/{domain}` in R2. A domain without a counter is not an error. If a counter cannot be reset,
the task resets all others and then fails. Message of the former queue: `analytics.warmup-daily-reset`.

### Window
The UTC day of the run's logical date. The run of 2026-11-15 fires on 2026-11-16 at 00:00, for the domains that warmed
up at that time.

### Re-run
Safe at any time: clear the run. Counters of later days are kept. An object in R2 has no day: if it was last written
more than five minutes after the end of the run's day, it counts as that of a later day.
While `ENABLE_ANALYTICS_CRON` is false, scheduled runs are skipped. Clear them after the pause.

### Deadline
00:30.

### Owner
analytics
"""

from __future__ import annotations

from airflow.sdk import DAG

from aggregator.warmup.operators import WarmupResetOperator
from aggregator.wiring import dag_args

with DAG(**dag_args("analytics_warmup_reset"), doc_md=__doc__, max_active_runs=1):
    WarmupResetOperator(
        task_id="reset_warmup_counters", sql="warmup/queries/warming_domains.sql", conn_id="analytics_db"
    )
