"""
### What
Starts the n8n workflow of every active KPI of the Variable `kpi-registry`, one task instance each, named by the KPI.
What became of each is in `kpi.job_kpis`, and as JSON in the view `kpi.job_records`. KPIs whose entry says
`"reportBack": true` are waited for, `JOB_TIMEOUT_MINUTES` at most. An invalid entry is left out, with a warning. The
run fails if a KPI did, after all others were sent.

### Window
None: the run of 2026-11-15 12:00 fires at that moment. After downtime, missed days are not sent: a run that begins on a
later day than its own, and more than an hour late, is skipped.

### Re-run
Clear the run, or the instance of one KPI: only KPIs that n8n has not accepted are sent again, as the registry has them
then. A KPI whose outcome is `unknown` is never sent by a clear: check n8n's executions, then trigger a new run with
`resend` and its id. A second run of the same day sends what no other run of it has sent. A backfill sends nothing. With
the param `resend`, a run sends everything once more, or what the param `kpis` lists.

### Deadline
12:45.

### Owner
kpi
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from aggregator.kpi.operators import (
    CreateKpiJobOperator,
    FinalizeKpiJobOperator,
    ReadKpiRegistryOperator,
    TriggerKpiOperator,
)
from aggregator.wiring import dag_args

with DAG(
    # n8n is asked four times within each try.
    **dag_args("kpi_dispatch", retries=2),
    doc_md=__doc__,
    max_active_runs=1,
    params={
        "resend": Param(default=False, type="boolean", description="Also send what was sent already, and old days"),
        "kpis": Param(
            None,
            type=["null", "array"],
            items={"type": "string"},
            description="Send these KPIs only, one id a line; empty: all active ones",
        ),
    },
):
    registry = ReadKpiRegistryOperator(task_id="read_registry")
    job = CreateKpiJobOperator(task_id="create_job")
    kpis = TriggerKpiOperator.partial(task_id="trigger_kpi", map_index_template="{{ task.kpi_id }}").expand(
        batch=registry.output, index=job.output
    )
    finalized = FinalizeKpiJobOperator(task_id="settle_job")
    registry >> job >> kpis >> finalized
