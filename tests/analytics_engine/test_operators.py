from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG

from aggregator.analytics_engine.operators import MAX_ROWS, AnalyticsEngineOperator
from aggregator.core.errors import PermanentError
from aggregator.core.timetable import OffsetCronTimetable
from tests.airflow_context import context

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_httpserver import HTTPServer
    from time_machine import TimeMachineFixture

TOKEN = "t0ken-That_must.not.be.seen"
PATH = "/client/v4/accounts/a1/analytics_engine/sql"
QUERY = (
    "SELECT count() AS n FROM clicks WHERE timestamp >= %(data_interval_start)s AND timestamp < %(data_interval_end)s "
    "AND blob7 = %(bucket)s FORMAT JSON"
)


@pytest.fixture(autouse=True)
def connection_of_the_server(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"conn_type": "http", "host": httpserver.url_for(""), "password": TOKEN, "extra": {"account_id": "a1"}}
    monkeypatch.setenv("AIRFLOW_CONN_ANALYTICS_ENGINE", json.dumps(fields))


@pytest.fixture(autouse=True)
def today(time_machine: TimeMachineFixture) -> None:
    time_machine.move_to("2026-11-20T12:00:00+00:00")


def respond(httpserver: HTTPServer, rows: int) -> None:
    body = {"meta": [{"name": "n", "type": "UInt64"}], "data": [{"n": str(n)} for n in range(rows)], "rows": rows}
    httpserver.expect_request(PATH, method="POST").respond_with_json(body)


def sent(httpserver: HTTPServer) -> list[str]:
    return [request.get_data(as_text=True) for request, _ in httpserver.log]


def run(operator: AnalyticsEngineOperator, day: datetime = datetime(2026, 11, 15, tzinfo=UTC)) -> Any:
    given: Any = {**context(operator, day, day + timedelta(days=1)), "params": {"bucket": "valid"}}
    operator.resolve_template_files()
    operator.render_template_fields(given)
    return operator.execute(given)


def operator(sql: str = QUERY, **arguments: Any) -> AnalyticsEngineOperator:
    timetable = OffsetCronTimetable("0 0 * * *", offset=timedelta(hours=1))
    with DAG("clicks", schedule=timetable, template_searchpath=arguments.pop("searchpath", [])):
        return AnalyticsEngineOperator(task_id="count", sql=sql, **arguments)


def test_query_of_the_window_returns_its_rows(httpserver: HTTPServer) -> None:
    respond(httpserver, 2)
    assert run(operator(parameters={"bucket": "it's"})) == [{"n": 0}, {"n": 1}]
    (query,) = sent(httpserver)
    assert query == (
        "SELECT count() AS n FROM clicks WHERE timestamp >= toDateTime('2026-11-15 00:00:00') "
        "AND timestamp < toDateTime('2026-11-16 00:00:00') AND blob7 = 'it''s' FORMAT JSON"
    )


def test_query_file_and_parameters_are_rendered(httpserver: HTTPServer, tmp_path: Path) -> None:
    (tmp_path / "count.sql").write_text(QUERY)
    respond(httpserver, 1)
    task = operator("count.sql", parameters={"bucket": "{{ params.bucket }}"}, searchpath=[str(tmp_path)])
    assert run(task) == [{"n": 0}]
    assert "blob7 = 'valid'" in sent(httpserver)[0]


def test_query_without_window_placeholders_is_run(httpserver: HTTPServer) -> None:
    respond(httpserver, 1)
    assert run(operator("SELECT count() AS n FROM clicks FORMAT JSON")) == [{"n": 0}]


def test_maximum_number_of_rows_is_returned(httpserver: HTTPServer) -> None:
    respond(httpserver, MAX_ROWS)
    assert len(run(operator(parameters={"bucket": "valid"}))) == MAX_ROWS


def test_more_rows_than_the_maximum_are_refused(httpserver: HTTPServer) -> None:
    respond(httpserver, MAX_ROWS + 1)
    with pytest.raises(PermanentError, match="AnalyticsEngineToPostgresOperator"):
        run(operator(parameters={"bucket": "valid"}))


def test_window_past_retention_is_refused_before_a_request(httpserver: HTTPServer) -> None:
    with pytest.raises(PermanentError, match="three months"):
        run(operator(parameters={"bucket": "valid"}), day=datetime(2026, 8, 20, tzinfo=UTC))
    assert sent(httpserver) == []


def test_operator_reads_no_connection_when_created(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_ANALYTICS_ENGINE")
    task = operator(conn_id="another")
    assert {name: getattr(task, name) for name in task.template_fields} == {
        "sql": QUERY,
        "parameters": None,
        "conn_id": "another",
    }
