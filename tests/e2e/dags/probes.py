"""DAGs that are due when Airflow has loaded them: one is late, one fails until it is fixed, one needs a retry."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, get_current_context, task

from aggregator.alerts.deadline import alert_after
from aggregator.alerts.notifier import notify_failed
from aggregator.core.errors import PermanentError
from aggregator.core.retry_policy import TransientOnlyRetryPolicy

FOLDER = Path(os.environ["PROBES"])
DEADLINE = timedelta(seconds=60)


def probe(dag_id: str, deadline: timedelta = DEADLINE) -> DAG:
    return DAG(
        dag_id,
        schedule="@once",
        is_paused_upon_creation=True,
        deadline=alert_after(deadline),
        on_failure_callback=notify_failed,
    )


with probe("probe_late"):

    @task(retries=2, retry_delay=timedelta(seconds=1))
    def wait() -> None:
        end = time.monotonic() + 10 * DEADLINE.total_seconds()
        while not (FOLDER / "go").exists() and time.monotonic() < end:
            time.sleep(0.2)

    wait()

with probe("probe_failed"):

    @task(retries=3, retry_delay=timedelta(seconds=1), retry_policy=TransientOnlyRetryPolicy())
    def fail() -> None:
        if not (FOLDER / "fixed").exists():
            msg = "The probe is not fixed. Create the file."
            raise PermanentError(msg)

    @task(trigger_rule="all_done", retry_policy=TransientOnlyRetryPolicy())
    def finish() -> None:
        if not (FOLDER / "fixed").exists():
            msg = "A task before this one failed."
            raise PermanentError(msg)

    fail() >> finish()

with probe("probe_retried", timedelta(hours=1)):

    @task(retries=1, retry_delay=timedelta(seconds=1))
    def fail_once() -> None:
        if get_current_context()["ti"].try_number == 1:
            msg = "once"
            raise ValueError(msg)

    fail_once()
