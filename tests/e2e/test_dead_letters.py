"""Dead letters on a real Airflow: one for a failed run, resolved when the run succeeds."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from dev.airflow_api import NotYetError, wait

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from dev.stack import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

DAG = "analytics_warmup_reset"
TASK = "reset_warmup_counters"
COMMAND = (sys.executable, "-m", "aggregator.alerts.dead_letters")


@pytest.fixture(scope="module")
def run_id(stack: Stack) -> str:
    """The run that the scheduler created."""
    run = stack.airflow.wait_for_run(DAG)
    assert run["state"] == "success"
    return str(run["dag_run_id"])


def letters(products: psycopg.Connection) -> list[tuple[Any, ...]]:
    columns = "type, correlation_id, error, failed_task_ids, scheduled_for, settled_at"
    return products.execute(f"select {columns} from ops.dead_letters").fetchall()


@contextmanager
def broken(products: psycopg.Connection) -> Iterator[None]:
    products.execute("alter table delivery.sending_domains rename to gone")
    try:
        yield
    finally:
        products.execute("alter table delivery.gone rename to sending_domains")


def until(products: psycopg.Connection, *, settled: bool) -> tuple[Any, ...]:
    """Wait until the only letter is open or resolved."""

    def found() -> tuple[Any, ...]:
        rows = letters(products)
        if not rows or (rows[0][-1] is not None) is not settled:
            msg = f"the letters are {rows}"
            raise NotYetError(msg)
        (row,) = rows
        return row

    letter: tuple[Any, ...] = wait(found, seconds=60)
    return letter


def callback_of_the_run(stack: Stack) -> None:
    """Wait until Airflow has called the callback of the DAG, which must not write a second letter."""
    log = "".join(path.read_text() for path in (stack.home / "airflow/logs").rglob(f"*{DAG}*") if path.is_file())
    if "Executing on_failure dag callback" not in log:
        msg = "the callback of the DAG was not called"
        raise NotYetError(msg)


def test_successful_run_has_no_letter(products: psycopg.Connection, run_id: str) -> None:
    assert letters(products) == []


def test_failed_run_has_one_letter_that_a_replay_resolves(
    stack: Stack, products: psycopg.Connection, run_id: str
) -> None:
    with broken(products):
        stack.airflow.clear(DAG, run_id)
        assert stack.airflow.wait_for_run(DAG, run_id)["state"] == "failed"
        until(products, settled=False)
        wait(lambda: callback_of_the_run(stack), seconds=60)

        ((type_, correlation_id, error, tasks, scheduled_for, settled_at),) = letters(products)
        assert (type_, correlation_id, tasks) == ("analytics.warmup-daily-reset", f"{DAG}/{run_id}", [TASK])
        assert error.startswith("PermanentError: PostgreSQL refused a statement on connection analytics_db: 42P01")
        assert scheduled_for == datetime.fromisoformat(stack.airflow.get(f"dags/{DAG}/dagRuns/{run_id}")["run_after"])
        assert settled_at is None
        assert "analytics.warmup-daily-reset" in stack.run(*COMMAND, "list")

    assert "Cleared 1 task instance" in stack.run(*COMMAND, "replay")
    assert stack.airflow.wait_for_run(DAG, run_id)["state"] == "success"
    until(products, settled=True)
    assert stack.run(*COMMAND, "list") == "No dead letters.\n"
