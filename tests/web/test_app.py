"""How Airflow's API server serves our apps: addresses, error responses, and its own API beside them."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import pytest
from airflow import plugins_manager
from airflow.api_fastapi.app import create_app, init_plugins
from fastapi import FastAPI
from fastapi.testclient import TestClient

from aggregator.web.app import APPS
from aggregator_plugin import AggregatorPlugin

if TYPE_CHECKING:
    import psycopg

pytestmark = pytest.mark.slow  # Airflow takes seconds to start

TITLES = {
    "/api/jobs": "Jobs",
    "/api/kpi": "KPI reports",
    "/api/health": "Health",
    "/api/freshness": "Freshness",
    "/api/operations": "Operations",
}


@pytest.fixture(scope="module")
def airflow_client() -> TestClient:
    """Airflow's API server with our plugin."""
    return TestClient(create_app(apps="core"), follow_redirects=False)


def test_own_app_at_api_would_hide_airflows_api(airflow_client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several apps, because Airflow 3.3 mounts a plugin's app before its own routes."""
    assert airflow_client.get("/api/v2/version").status_code == 200
    apps = [{"app": FastAPI(), "url_prefix": "/api", "name": "one"}]
    monkeypatch.setattr(plugins_manager, "get_fastapi_plugins", lambda: (apps, []))
    assert TestClient(create_app(apps="core")).get("/api/v2/version").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/health", 200),
        ("GET", "/api/health/", 200),
        ("HEAD", "/api/health", 200),
        ("HEAD", "/api/health/", 200),
        ("POST", "/api/health", 405),
        ("GET", "/api/freshness", 401),
        ("GET", "/api/freshness/", 401),
        ("HEAD", "/api/freshness", 401),
        ("HEAD", "/api/freshness/", 401),
        ("GET", "/api/jobs/telemetry-daily", 401),
        ("HEAD", "/api/jobs/telemetry-daily", 401),
        ("POST", "/api/jobs/telemetry-daily", 401),
        ("GET", "/api/jobs/telemetry-daily/", 307),
        ("POST", "/api/kpi/trace/kpi", 401),
        ("POST", "/api/kpi/trace/kpi/", 401),
        ("GET", "/api/kpi/trace/kpi", 405),
        ("GET", "/api/operations/overview", 401),
        ("HEAD", "/api/operations/overview", 401),
        ("POST", "/api/operations/overview", 405),
        ("GET", "/api/v2/version", 200),
        ("GET", "/api/healthy", 404),
        ("GET", "/x/api/health", 200),  # Airflow's user interface
    ],
)
def test_address_reaches_its_app(
    airflow_client: TestClient,
    kpi_db: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    path: str,
    status: int,
) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_KPI-REGISTRY", '{"kpis": []}')
    monkeypatch.setenv("CRON_SECRET", "right")
    monkeypatch.setenv("SCHEDULER_API_KEY", "right")
    assert airflow_client.request(method, path).status_code == status


@pytest.mark.parametrize(("prefix", "title"), TITLES.items())
def test_every_app_has_documentation_pages(airflow_client: TestClient, prefix: str, title: str) -> None:
    openapi = airflow_client.get(f"{prefix}/openapi.json").json()
    assert (openapi["info"]["title"], openapi["servers"]) == (title, [{"url": prefix}])
    for page in ("docs", "redoc"):
        assert title in airflow_client.get(f"{prefix}/{page}").text


def test_plugin_registers_every_app() -> None:
    server = FastAPI()
    init_plugins(server)
    assert {app["url_prefix"]: app["app"] for app in AggregatorPlugin().fastapi_apps} == APPS
    assert APPS.keys() == TITLES.keys()


def test_every_path_with_get_has_head() -> None:
    for prefix, app in APPS.items():
        if prefix == "/api/operations":
            continue  # its middleware turns HEAD into GET; test_operations.py sends HEAD
        methods: dict[str, set[str]] = defaultdict(set)
        for route in app.routes:
            methods[route.path] |= route.methods  # type: ignore[attr-defined]
        assert methods
        for path, allowed in methods.items():
            assert "GET" not in allowed or "HEAD" in allowed, f"{prefix}{path}"
