"""The API of the Operations page on a real PostgreSQL, behind Airflow's own API server and login."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aggregator.core.catalog import CATALOG
from aggregator.web.operations import assets
from aggregator.web.operations.app import app

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    from tests.web.conftest import Operations

pytestmark = pytest.mark.slow

DATABASES = ("market", "clicks", "analytics", "telemetry", "kpi", "ops")
TRACE = "trace_20261115_120000_abcdefgh"
PATHS = {
    path: path.format(dag_id="ohlcv_aggregation", traceId=TRACE)
    for path in app.openapi()["paths"]
    if not path.startswith("/static")
}
"""Path in the OpenAPI document → path to request."""
REQUIRED: dict[str, Any] = {"symbol": "BTCUSD", "run_id": "a run"}

OF_MARKET = {"/overview", "/alerts", "/dags/{dag_id}", "/dags/{dag_id}/run", *(p for p in PATHS if "/ohlcv" in p)}
"""Paths that a user who may read only ``ohlcv_aggregation`` may request."""


@pytest.mark.parametrize(("user", "status", "reason"), [(None, 401, "login"), ("nobody", 403, "forbidden")])
def test_every_path_requires_a_login_and_a_role(
    operations: Operations, user: str | None, status: int, reason: str
) -> None:
    assert len(PATHS) > 20
    for path in PATHS.values():
        response = operations.get(path, user=user, **REQUIRED)
        assert (response.status_code, response.json()["reason"]) == (status, reason), path


def test_user_sees_only_the_data_of_dags_that_they_may_read(
    operations: Operations, migrated: Callable[..., psycopg.Connection]
) -> None:
    migrated("market", "ops")
    statuses = {path: operations.get(url, user="market", **REQUIRED).status_code for path, url in PATHS.items()}
    assert {path for path, status in statuses.items() if status != 403} == OF_MARKET


@pytest.mark.parametrize("path", ["/dags/x%00y", "/dags/%00/run?run_id=a", "/dags/unknown", "/kpi/jobs/%00"])
@pytest.mark.parametrize("user", ["admin", "market"])
def test_path_that_names_nothing_is_refused_without_names_of_dags(operations: Operations, user: str, path: str) -> None:
    response = operations.get(path, user=user)
    assert response.status_code in {400, 403, 404}
    assert "click_rollups" not in response.text


def test_lists_leave_out_dags_that_the_user_may_not_read(
    operations: Operations, migrated: Callable[..., psycopg.Connection]
) -> None:
    connection = migrated("ops")
    insert = "insert into ops.alerts (kind, subject, members, since, text) values (%s, %s, '{}', now(), 'secret')"
    for kind, subject in [
        ("failed", "click_rollups"),
        ("stale", "public.click_rollups"),
        ("dead_letters", "ops.dead_letters"),
        ("stale", "ohlcv.bars"),
        ("task_disabled", "ohlcv.tasks"),
    ]:
        connection.execute(insert, [kind, subject])

    def seen(user: str) -> tuple[set[str], set[str], set[str]]:
        overview = operations.get("/overview", user=user).json()
        alerts = operations.get("/alerts", user=user).json()
        assert alerts["total"] == len(alerts["items"])
        assert overview["problems"] == []
        in_overview = [*overview["otherAlerts"], *(each for dag in overview["dags"] for each in dag["openAlerts"])]
        return (
            {dag["dagId"] for dag in overview["dags"]},
            {alert["subject"] for alert in alerts["items"]},
            {alert["subject"] for alert in in_overview},
        )

    ours = {"ohlcv.bars", "ohlcv.tasks"}
    everything = {*ours, "click_rollups", "public.click_rollups", "ops.dead_letters"}
    assert seen("market") == ({"ohlcv_aggregation"}, ours, ours)
    assert seen("admin") == ({*CATALOG}, everything, everything)
    assert operations.get("/alerts", user="market", dag_id="click_rollups").json()["total"] == 0
    assert operations.get("/alerts", dag_id="click_rollups").json()["total"] == 2
    assert operations.get("/dags/click_rollups", user="market").status_code == 403
    assert operations.get("/dags/click_rollups/run", user="market", run_id="x").status_code == 403


def test_empty_database_has_no_items(operations: Operations, migrated: Callable[..., psycopg.Connection]) -> None:
    migrated(*DATABASES)
    for path, url in PATHS.items():
        response = operations.get(url, **REQUIRED)
        body = response.json()
        expected = (404, "not_found") if path in {"/ohlcv/bars", "/kpi/jobs/{traceId}"} else (200, None)
        assert (response.status_code, body.get("reason")) == expected, response.text
        assert (body.get("items", []), body.get("total", 0), body.get("problems", [])) == ([], 0, []), path
        assert (
            operations.client.head(
                f"/api/operations{url}",
                params=REQUIRED,
                headers={"Authorization": f"Bearer {operations.tokens['admin']}"},
            ).status_code
            == response.status_code
        )


@pytest.mark.parametrize(
    ("url", "status", "reason"),
    [
        (None, 404, "not_connected"),
        ("postgresql://u:secret-word@127.0.0.1:1/x?connect_timeout=2", 503, "unavailable"),
    ],
)
@pytest.mark.parametrize("path", ["/clicks/days", "/ohlcv/tasks", "/kpi/grid", "/telemetry/days", "/analytics/scores"])
def test_database_that_fails_is_named_without_its_password(
    operations: Operations,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    url: str | None,
    status: int,
    reason: str,
) -> None:
    for name in DATABASES if url else ():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}_DB", url or "")
    response = operations.get(path)
    assert (response.status_code, response.json()["reason"]) == (status, reason)
    assert "_db" in response.json()["detail"]
    assert "secret-word" not in response.text
    overview = operations.read("/overview")
    assert {dag["dagId"] for dag in overview["dags"]} == {*CATALOG}
    assert "alerts cannot be read" in overview["problems"][0]
    assert "secret-word" not in str(overview)


def test_database_without_tables_is_not_migrated(
    operations: Operations, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CLICKS_DB", database_url)
    response = operations.get("/clicks/days")
    assert (response.status_code, response.json()["reason"]) == (404, "not_migrated")
    assert "aggregator.postgres.migrations" in response.json()["detail"]


def test_files_are_immutable_and_no_other_file_can_be_read(
    operations: Operations, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    script = tmp_path / "page.js"
    script.write_text("export default 1")
    monkeypatch.setitem(assets.FILES, "lib/page.js", script)
    response = operations.get(f"/static/{assets.VERSION}/lib/page.js")
    assert (response.status_code, response.text) == (200, "export default 1")
    assert response.headers["content-type"] == "text/javascript; charset=utf-8"
    assert response.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert response.headers["x-content-type-options"] == "nosniff"
    outside = [
        "../app.py",
        "%2e%2e/app.py",
        "..%2fapp.py",
        "lib/../../app.py",
        "/etc/passwd",
        "//etc/passwd",
        "lib",
        "",
    ]
    for name in [*outside, "x%00.js"]:
        response = operations.get(f"/static/{assets.VERSION}/{name}")
        assert not response.is_success, name
        assert response.headers.get("cache-control") != assets.FOREVER
    assert operations.get("/static/0123456789abcdef/lib/page.js").headers["cache-control"] == "no-store"
    assert operations.get(f"/static/{assets.VERSION}/lib/page.js", user=None).status_code == 401


def test_etag_saves_the_second_response(operations: Operations, migrated: Callable[..., psycopg.Connection]) -> None:
    connection = migrated("clicks")
    first = operations.get("/clicks/days")
    assert first.headers["cache-control"] == "private, max-age=5"
    again = {"If-None-Match": first.headers["etag"]}
    second = operations.get("/clicks/days", headers=again)
    assert (second.status_code, second.content, second.headers["etag"]) == (304, b"", first.headers["etag"])
    connection.execute("insert into public.hires values ('a')")
    connection.execute("insert into public.click_rollups values (current_date, 'a', 1, 2)")
    third = operations.get("/clicks/days", headers=again)
    assert (third.status_code, third.json()["valid"][-1]) == (200, 1)
    assert operations.get("/clicks/days", user=None, headers=again).status_code == 401


def test_react_apps_name_the_file_that_exists() -> None:
    apps = assets.react_apps()
    assert [each["destination"] for each in apps] == ["nav", "dag", "dag_run", "dashboard"]
    assert len({each["url_route"] for each in apps}) == len(apps)
    assert {each["bundle_url"] for each in apps} == {f"api/operations/static/{assets.VERSION}/index.js"}
