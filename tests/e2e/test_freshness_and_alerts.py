"""Alerts on a real Airflow: late, failed, retried, fixed and stale, with an outage of the receiver.

pytest runs modules by name: this one runs after the deadline of the probes, and before others kill the scheduler.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from dev.airflow_api import NotYetError, wait

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import psycopg

    from dev.alerts_receiver import AlertsReceiver
    from dev.stack import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

DEADLINE = timedelta(seconds=60)
"""Deadline of the DAGs in ``tests/e2e/dags``."""

SOON = timedelta(seconds=30)
"""Longest time from a missed deadline to its alert."""


def alerts(products: psycopg.Connection, subject: str, kind: str = "%") -> list[tuple[Any, ...]]:
    query = "select kind, settled_at is not null from ops.alerts where subject = %s and kind like %s order by id"
    return products.execute(query, [subject, kind]).fetchall()


def test_late_run_sends_one_alert_in_time_and_one_recovery(
    stack: Stack, products: psycopg.Connection, receiver: AlertsReceiver, probes: Path
) -> None:
    (text,) = receiver.wait_for_messages("probe_late", 1)
    (run,) = stack.airflow.runs("probe_late")
    deadline = datetime.fromisoformat(run["run_after"]) + DEADLINE
    assert text.startswith(
        f"WARNING LATE: probe_late has not finished by its deadline, {deadline:%Y-%m-%d %H:%M} UTC. Run "
    )
    assert "is running. Next step: open the run " in text
    assert text.endswith(f" {stack.airflow_url}/dags/probe_late/runs/{quoted(run['dag_run_id'])}")
    query = "select sent_at from ops.alert_messages where text like 'WARNING LATE: probe_late%'"
    ((sent_at,),) = products.execute(query).fetchall()
    assert deadline < sent_at < deadline + SOON

    (probes / "go").touch()
    _, recovery = receiver.wait_for_messages("probe_late", 2)
    assert recovery.startswith(f"RECOVERED: probe_late is no longer late. Run {run['dag_run_id']} succeeded.")
    assert alerts(products, "probe_late") == [("late", True)]


def test_failed_run_sends_one_alert_not_as_late_and_one_recovery(
    stack: Stack, products: psycopg.Connection, receiver: AlertsReceiver, probes: Path
) -> None:
    (text,) = receiver.wait_for_messages("FAILED: probe_failed", 1)
    (run,) = stack.airflow.runs("probe_failed")
    assert text.startswith("CRITICAL FAILED: probe_failed failed at ")
    assert (
        "Task fail failed with a permanent error, which is not retried: The probe is not fixed. Next step: fix the "
        f"cause, then clear run {run['dag_run_id']}, due "
    ) in text

    deadline = datetime.fromisoformat(run["run_after"]) + DEADLINE
    wait(lambda: after(deadline + SOON / 3), seconds=120)
    # On a slow machine the run was late before it failed.
    late = [] if datetime.fromisoformat(run["end_date"]) < deadline else alerts(products, "probe_failed", "late")
    assert alerts(products, "probe_failed") == [*late, ("failed", False)]

    (probes / "fixed").touch()
    stack.airflow.clear("probe_failed", run["dag_run_id"])
    (recovery,) = receiver.wait_for_messages("RECOVERED: probe_failed has recovered.", 1)
    assert recovery.startswith(f"RECOVERED: probe_failed has recovered. Run {run['dag_run_id']} succeeded.")
    assert alerts(products, "probe_failed") == [*late, ("failed", True)]


def test_success_on_retry_sends_no_alert(stack: Stack, products: psycopg.Connection, receiver: AlertsReceiver) -> None:
    assert stack.airflow.wait_for_run("probe_retried")["state"] == "success"
    assert alerts(products, "probe_retried") == []
    assert receiver.messages("probe_retried") == []


def test_stale_data_is_reported_after_an_outage_of_the_receiver_and_to_a_monitor(
    stack: Stack, products: psycopg.Connection, receiver: AlertsReceiver
) -> None:
    stack.airflow.wait_for_run("telemetry_daily")
    before = len(receiver.messages("telemetry_daily"))
    wait(lambda: monitored(stack, 200, "fresh"), seconds=60)
    with telemetry_of_last_week(products), receiver.failing():
        wait(lambda: monitored(stack, 503, "stale"), seconds=60)
        wait(lambda: refused(receiver, "CRITICAL STALE: public.telemetry_daily"), seconds=60)
    # As a cron job, beside the process that runs.
    stack.run(sys.executable, "-m", "aggregator.alerts.watch", "--once")
    texts = receiver.wait_for_messages("telemetry_daily", before + 2)[before:]
    assert [text.split(":")[0] for text in texts] == ["CRITICAL STALE", "RECOVERED"]
    wait(lambda: monitored(stack, 200, "fresh"), seconds=60)
    assert alerts(products, "public.telemetry_daily") == [("stale", True)]


def test_freshness_without_a_token_is_refused(stack: Stack) -> None:
    assert httpx.get(f"{stack.airflow_url}/api/freshness").status_code == 401


@contextmanager
def telemetry_of_last_week(products: psycopg.Connection) -> Iterator[None]:
    products.execute("update telemetry_daily set date = date - 7")
    try:
        yield
    finally:
        products.execute("update telemetry_daily set date = date + 7")


def refused(receiver: AlertsReceiver, start: str) -> None:
    if not any(text.startswith(start) for text in receiver.refused):
        msg = "the receiver got no request during its outage"
        raise NotYetError(msg)


def monitored(stack: Stack, status: int, state: str) -> None:
    """Whether an external monitor gets this status and state of telemetry. Results may be ten seconds old."""
    found, states = stack.freshness()
    if (found, states["public.telemetry_daily"]) != (status, state):
        msg = f"{found}, telemetry is {states['public.telemetry_daily']}"
        raise NotYetError(msg)


def after(time: datetime) -> None:
    if datetime.now(UTC) < time:
        msg = f"{time} is in the future"
        raise NotYetError(msg)


def quoted(run_id: str) -> str:
    return run_id.replace(":", "%3A").replace("+", "%2B")
