"""
### What
Starts the n8n workflow of each active KPI in the Variable `kpi-registry`. `send_kpis` sends all KPIs at once. Then each
KPI is one task instance, named by its id, which shows the outcome or retries the KPI. The results are in
`kpi.job_kpis`, and as JSON in the view `kpi.job_records`. If an entry has `"reportBack": true`, the run waits for n8n's
report, at most `JOB_TIMEOUT_MINUTES`. Invalid entries are dropped with a warning. A failed KPI does not stop the
others; the run fails after all were sent.

### Window
None. The run of 2026-11-15 12:00 starts at 2026-11-15 12:00. `KPI_DISPATCH_CRON` changes the schedule. Runs for past
days are skipped, so missed days are not sent after downtime. A run counts as past when it starts after its UTC day
ended and more than one hour late.

### Re-run
Clear the run, or the instance of one KPI. Only KPIs that are `failed` or `pending` are sent again, with the current
registry entry. A clear never sends a KPI that is `unknown`: check n8n's executions, then trigger a new run with
`resend` and its id. A second run of the same day sends only KPIs that no other run sent. A backfill sends nothing. With
the param `resend`, a run sends each KPI once more. The param `kpis` selects KPIs.

### Deadline
12:45.

### Owner
kpi
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from aggregator.kpi.operators import (
    FinalizeKpiJobOperator,
    ReadKpiRegistryOperator,
    SendKpisOperator,
    TriggerKpiOperator,
)
from aggregator.wiring import dag_args

with DAG(
    # The first try of a KPI shows the outcome of send_kpis. Retries send the KPI.
    **dag_args("kpi_dispatch", retries=2),
    doc_md=__doc__,
    max_active_runs=1,
    params={
        "resend": Param(
            default=False, type="boolean", description="Send KPIs that were sent already, and send on past days"
        ),
        "kpis": Param(
            None,
            type=["null", "array"],
            items={"type": "string"},
            description="Ids of the KPIs to send, one per line. Empty: all active KPIs",
        ),
    },
):
    registry = ReadKpiRegistryOperator(task_id="read_registry")
    sent = SendKpisOperator(task_id="send_kpis")
    kpis = TriggerKpiOperator.partial(task_id="trigger_kpi", map_index_template="{{ task.kpi_id }}").expand(
        batch=registry.output, index=sent.output
    )
    finalized = FinalizeKpiJobOperator(task_id="settle_job")
    registry >> sent >> kpis >> finalized
