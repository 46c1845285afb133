"""Pagination and waits of the API client. The end-to-end tests cover the rest."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from werkzeug import Request, Response

from dev.airflow_api import AirflowApi, NotYetError

if TYPE_CHECKING:
    from pytest_httpserver import HTTPServer


@pytest.fixture
def airflow(httpserver: HTTPServer) -> AirflowApi:
    return AirflowApi(httpserver.url_for("").rstrip("/"))


@pytest.mark.parametrize("number", [0, 1, 100, 101, 250])
def test_entries_of_all_pages_are_read_once(httpserver: HTTPServer, airflow: AirflowApi, number: int) -> None:
    def page(request: Request) -> Response:
        first, limit = int(request.args["offset"]), int(request.args["limit"])
        tasks = [{"map_index": index} for index in range(number)][first : first + limit]
        return Response(json.dumps({"total_entries": number, "task_instances": tasks}))

    httpserver.expect_request("/api/v2/dags/d/taskInstances").respond_with_handler(page)
    found = [task["map_index"] for task in airflow.entries("dags/d/taskInstances", "task_instances")]
    assert found == list(range(number))


@pytest.mark.parametrize("states", [[], ["success"], ["success", "running"], ["failed", "success", "queued"]])
def test_wait_for_backfill_returns_when_all_runs_have_finished(
    httpserver: HTTPServer, airflow: AirflowApi, states: list[str]
) -> None:
    def answer(states: list[str]) -> None:
        runs = [{"run_type": "backfill", "state": state} for state in states]
        others = [{"run_type": "manual", "state": "success"}, {"run_type": "scheduled", "state": "running"}]
        httpserver.clear()
        httpserver.expect_request("/api/v2/dags/d/dagRuns").respond_with_json({"dag_runs": [*runs, *others]})

    answer(states)
    with pytest.raises(NotYetError, match=r"d: \d of \d runs of backfills"):
        airflow.wait_for_backfill("d", 2, seconds=0)
    answer(["success", "failed"])
    assert [run["state"] for run in airflow.wait_for_backfill("d", 2, seconds=0)] == ["success", "failed"]
