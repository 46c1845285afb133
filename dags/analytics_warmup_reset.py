"""
### What
Resets the daily counters of sending domains that warm up: verified, and younger than 30 days. The queue's message was
`analytics.warmup-daily-reset`. The counters are rows of `delivery.warmup_counters`, or objects
`warmup/daily/{organization}/{domain}` in R2 if `WARMUP_COUNTER_STORE` is `r2`. A domain without a counter is fine; one
whose counter cannot be reset fails the task, after all others were.

### Window
The UTC day of the run's logical date: the run of 2026-11-15 fires on 2026-11-16 at 00:00, and asks which domains were
warming up at that moment.

### Re-run
Safe at any time: clear the run. Counters of later days stay as they are. An object in R2 has no day; it is taken for
that of a later one if it was last written more than five minutes after the run's midnight. While
`ENABLE_ANALYTICS_CRON` is false, scheduled runs are skipped; clear them after the pause.

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
