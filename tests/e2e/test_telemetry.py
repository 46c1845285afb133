"""Telemetry on a real Airflow: scheduled, started by concurrent HTTP requests, refused, fixed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.oracles import telemetry_of

if TYPE_CHECKING:
    import psycopg

    from dev.stack import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

DAG = "telemetry_daily"
TASK = "roll_up_telemetry"
CALLERS = 50


def stored(
    products: psycopg.Connection, columns: str = "date, event, count, unique_users, value_sum, meta"
) -> list[Any]:
    return products.execute(f'select {columns} from telemetry_daily order by date, event collate "C"').fetchall()


def expected(products: psycopg.Connection, first: date, last: date) -> list[Any]:
    cursor = products.execute("select id, user_id::text, event, value, meta, created_at from telemetry")
    names = [column.name for column in cursor.description or ()]
    rows = telemetry_of(dict(zip(names, row, strict=True)) for row in cursor)
    return [row for row in rows if first <= row[0] <= last]


def call(stack: Stack, method: str = "GET", bearer: str | None = None, **arguments: Any) -> httpx.Response:
    secret = bearer or stack.environment()["CRON_SECRET"]
    return httpx.request(
        method,
        f"{stack.airflow_url}/api/jobs/telemetry-daily",
        headers={"Authorization": f"Bearer {secret}"},
        timeout=180,
        **arguments,
    )


@pytest.fixture(scope="module")
def yesterday(stack: Stack) -> date:
    """The day of the run that the scheduler created."""
    run = stack.airflow.wait_for_run(DAG)
    assert (run["state"], run["run_type"]) == ("success", "scheduled")
    return date.fromisoformat(run["data_interval_start"][:10])


def test_scheduled_run_stores_the_latest_day(stack: Stack, products: psycopg.Connection, yesterday: date) -> None:
    rows = stored(products)
    # Two days, if midnight passed after the start of Airflow.
    first = min(run["data_interval_start"][:10] for run in stack.airflow.runs(DAG))
    assert rows == expected(products, date.fromisoformat(first), yesterday)
    assert rows


def test_request_with_wait_returns_the_result_of_a_range(
    stack: Stack, products: psycopg.Connection, yesterday: date
) -> None:
    first = yesterday - timedelta(days=6)
    range_ = {"startDate": f"{first}", "endDate": f"{yesterday}", "wait": True}
    before = stored(products)

    dry = call(stack, "POST", json={**range_, "dryRun": True})
    assert stored(products) == before
    response = call(stack, "POST", json=range_)

    assert (dry.status_code, response.status_code) == (200, 200)
    assert response.json() == dry.json()
    assert stored(products) == expected(products, first, yesterday)
    assert response.json()["processed"] == len(stored(products))


def test_fifty_concurrent_requests_start_fifty_runs_that_rewrite_nothing(
    stack: Stack, products: psycopg.Connection, yesterday: date
) -> None:
    versions = stored(products, "date, event, xmin, xmax, ctid")
    with ThreadPoolExecutor(CALLERS) as threads:
        responses = list(threads.map(lambda _: call(stack), range(CALLERS)))
    assert {response.status_code for response in responses} == {202}
    runs = {response.json()["runId"] for response in responses}
    assert len(runs) == CALLERS
    assert runs <= {run["dag_run_id"] for run in stack.airflow.runs(DAG)}
    # The other runs would take minutes and do nothing else.
    kept, *others = sorted(runs)
    for run_id in others:
        httpx.delete(f"{stack.airflow_url}/api/v2/dags/{DAG}/dagRuns/{run_id}", timeout=30)
    assert stack.airflow.wait_for_run(DAG, kept)["state"] == "success"
    assert stored(products, "date, event, xmin, xmax, ctid") == versions


def test_refused_requests_start_no_run(stack: Stack, yesterday: date) -> None:
    before = len(stack.airflow.runs(DAG))
    assert call(stack, bearer="wrong").status_code == 401
    assert call(stack, params={"startDate": "2024-01-01", "endDate": "2025-02-03"}).status_code == 400
    assert len(stack.airflow.runs(DAG)) == before


def test_refused_event_fails_the_run_after_all_others_are_stored(
    stack: Stack, products: psycopg.Connection, yesterday: date
) -> None:
    late = datetime(yesterday.year, yesterday.month, yesterday.day, 23, tzinfo=UTC)
    products.execute("insert into telemetry (event, created_at) values ('evil', %s), ('fine', %s)", [late, late])
    products.execute("alter table telemetry_daily add constraint no_evil check (event <> 'evil')")

    response = call(stack, params={"wait": "true"})

    assert response.status_code == 500
    (error,) = response.json()["errors"]
    assert "'evil' (1 rows): 23514 check_violation" in error
    assert {row["event"] for row in response.json()["results"]} > {"fine"}
    assert products.execute("select event from telemetry_daily where event in ('evil', 'fine')").fetchall() == [
        ("fine",)
    ]
    run = next(run for run in stack.airflow.runs(DAG) if run["state"] == "failed")
    assert "refused 1 of the groups" in stack.airflow.log(DAG, run["dag_run_id"], TASK, 1)

    products.execute("alter table telemetry_daily drop constraint no_evil")
    assert call(stack, params={"wait": "true"}).json()["success"]
    assert products.execute("select count(*) from telemetry_daily where event = 'evil'").fetchone() == (1,)
    products.execute("delete from telemetry_daily where event in ('evil', 'fine')")
    products.execute("delete from telemetry where event in ('evil', 'fine')")
