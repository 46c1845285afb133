"""Click rollups on a real Airflow: scheduled, cleared, backfilled, tested on a laptop, killed."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest

from dev.airflow_api import NotYetError, wait
from dev.sample import clicks
from tests.leaks import leaked
from tests.oracles import rollups_of

if TYPE_CHECKING:
    from dev.stack import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

DAG = "click_rollups"
TASK = "roll_up_clicks"

Rows = list[tuple[object, ...]]


def stored(products: psycopg.Connection, day: date, columns: str = "hire_id, valid_clicks, invalid_clicks") -> Rows:
    query = f"""select {columns} from click_rollups where day = %s order by hire_id collate "C" """
    return products.execute(query, [day]).fetchall()


def versions(products: psycopg.Connection, day: date) -> Rows:
    """The rows with the columns that change when a row is rewritten or locked."""
    return stored(products, day, "hire_id, xmin, xmax, ctid, valid_clicks, invalid_clicks, created_at, updated_at")


def expected(day: date) -> Rows:
    return rollups_of(clicks.events(day), {hire["id"] for hire in clicks.hires()})


@pytest.fixture(scope="module")
def last_night(stack: Stack) -> tuple[str, date]:
    """The run that the scheduler created, and its day."""
    run = stack.airflow.wait_for_run(DAG)
    assert run["state"] == "success"
    assert run["run_type"] == "scheduled"
    return run["dag_run_id"], date.fromisoformat(run["data_interval_start"][:10])


def test_first_scheduled_run_covers_the_latest_day_only(
    stack: Stack, products: psycopg.Connection, last_night: tuple[str, date]
) -> None:
    _, day = last_night
    rows = stored(products, day)
    assert rows == expected(day)
    assert rows
    assert products.execute("select distinct day from click_rollups").fetchall() == [(day,)]
    assert [run["run_type"] for run in stack.airflow.runs(DAG)] == ["scheduled"]


def test_ui_shows_the_summary_of_the_schedule(stack: Stack) -> None:
    assert stack.airflow.get(f"dags/{DAG}/details")["timetable_summary"] == "Daily at 01:00 UTC, for the UTC day before"


def test_cleared_run_rewrites_no_row(stack: Stack, products: psycopg.Connection, last_night: tuple[str, date]) -> None:
    run_id, day = last_night
    before = versions(products, day)

    stack.airflow.clear(DAG, run_id)

    assert stack.airflow.wait_for_run(DAG, run_id)["state"] == "success"
    result = stack.airflow.result(DAG, run_id, TASK)
    assert (result["inserted"], result["updated"], result["unchanged"]) == (0, 0, len(before))
    assert versions(products, day) == before


def test_backfill_of_seven_days_stores_seven_correct_days(
    stack: Stack, products: psycopg.Connection, last_night: tuple[str, date]
) -> None:
    _, newest = last_night
    days = [newest - timedelta(days=number) for number in range(7, 0, -1)]
    stack.run("airflow", "backfill", "create", "--dag-id", DAG, "--from-date", f"{days[0]}", "--to-date", f"{days[-1]}")
    runs = stack.airflow.wait_for_backfill(DAG, len(days))
    assert {run["state"] for run in runs} == {"success"}
    assert products.execute("select text from ops.alerts where subject = %s", [DAG]).fetchall() == []
    for day in days:
        assert stored(products, day) == expected(day), day


def test_task_killed_between_load_and_commit_is_retried(
    stack: Stack, products: psycopg.Connection, last_night: tuple[str, date]
) -> None:
    run_id, day = last_night
    rows = stored(products, day)
    products.execute("delete from click_rollups where day = %s", [day])
    # The upsert waits for this lock. The response of Analytics Engine is loaded, and nothing is committed.
    with psycopg.connect(stack.products_url) as holder:
        holder.execute("lock table click_rollups in share mode")
        stack.airflow.clear(DAG, run_id)
        wait(lambda: waits_for_a_lock(products), seconds=60)
        kill(stack, run_id)
        wait(lambda: is_gone(products), seconds=30)
        # A clear starts the next try, because the backoff takes too long.
        wait(lambda: is_up_for_retry(stack, run_id), seconds=60)
        assert stored(products, day) == []
    stack.airflow.clear(DAG, run_id)
    assert stack.airflow.wait_for_run(DAG, run_id)["state"] == "success"
    assert stored(products, day) == rows


def test_dags_test_stores_the_rows_of_the_scheduled_run(
    stack: Stack, products: psycopg.Connection, last_night: tuple[str, date]
) -> None:
    _, day = last_night
    scheduled = stored(products, day)
    products.execute("delete from click_rollups where day = %s", [day])

    # Otherwise the scheduler could run the task of this run first.
    stack.airflow.patch(f"dags/{DAG}", is_paused=True)
    try:
        output = stack.run("airflow", "dags", "test", DAG, f"{day}")
    finally:
        stack.airflow.patch(f"dags/{DAG}", is_paused=False)

    assert stored(products, day) == scheduled
    assert not leaked(stack.home, output.encode())


def waits_for_a_lock(products: psycopg.Connection) -> None:
    if task_backends(products, "and wait_event_type = 'Lock'") == 0:
        msg = "the task does not wait for the lock"
        raise NotYetError(msg)


def is_gone(products: psycopg.Connection) -> None:
    if task_backends(products, "") > 0:
        msg = "the transaction of the killed task still exists"
        raise NotYetError(msg)


def task_backends(products: psycopg.Connection, condition: str) -> int:
    query = f"select count(*) from pg_stat_activity where application_name like '{DAG}/{TASK}/%' {condition}"
    ((number,),) = products.execute(query).fetchall()
    return int(number)


def is_up_for_retry(stack: Stack, run_id: str) -> None:
    if (state := stack.airflow.get(f"dags/{DAG}/dagRuns/{run_id}/taskInstances/{TASK}")["state"]) != "up_for_retry":
        msg = f"the task is {state}"
        raise NotYetError(msg)


def kill(stack: Stack, run_id: str) -> None:
    """Kill the process of the task."""
    task = stack.airflow.get(f"dags/{DAG}/dagRuns/{run_id}/taskInstances/{TASK}")
    psutil.Process(task["pid"]).kill()
