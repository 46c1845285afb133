"""``GET /api/health``: status 200 and the JSON contract whatever is down, and no secrets in the response."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from fastapi.testclient import TestClient

from aggregator.kpi import jobs
from aggregator.kpi.registry import parse
from aggregator.web import health
from aggregator.web.app import APPS
from tests.kpi_data import TRACE, entry, send

if TYPE_CHECKING:
    from pathlib import Path

KPI = entry(webhookUrl="https://n8n.example.com/webhook/secret-path")
REGISTRY = json.dumps({"kpis": [KPI]})
VARIABLE = "AIRFLOW_VAR_KPI-REGISTRY"
SECRET = "secret-word"


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, REGISTRY)


def check() -> dict[str, Any]:
    response = TestClient(APPS["/api/health"]).get("/")
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    assert not re.search(f"{SECRET}|secret-path|://|127.0.0.1|Traceback", response.text)
    body: dict[str, Any] = response.json()
    assert datetime.fromisoformat(body.pop("timestamp")).utcoffset() == timedelta()
    assert isinstance(body.pop("responseTime"), int)
    return body


HEALTHY = {
    "status": "healthy",
    "worker": "scheduler-worker",
    "version": "0.1.0",
    "kvStores": {"jobs": True, "config": True},
}


def test_before_the_first_job_status_is_healthy(kpi_db: psycopg.Connection) -> None:
    assert check() == HEALTHY


@pytest.mark.parametrize("created_at", ["infinity", "57841-01-01", "2999-01-01"])
def test_job_dated_in_the_future_is_not_the_last_job(kpi_db: psycopg.Connection, created_at: str) -> None:
    insert = """
        insert into kpi.jobs (trace_id, dag_id, run_id, environment, created_at)
        values (%s, 'kpi_dispatch', %s, 'test', %s)
    """
    kpi_db.execute(insert, ["trace_20261115_120000_abcdefgh", "right", "2026-11-15"])
    kpi_db.execute(insert, ["trace_20261115_120000_zzzzzzzz", "wrong", created_at])
    body = check()
    assert body["lastJob"]["traceId"] == "trace_20261115_120000_abcdefgh"


def test_last_job_is_reported(kpi_db: psycopg.Connection) -> None:
    for suffix in ("00000000", "abc12345"):
        trace_id = TRACE[:-8] + suffix
        jobs.create(kpi_db, trace_id, parse(REGISTRY).kpis, dag_id="d", run_id=suffix, environment="production")
    send(kpi_db, "a")
    jobs.finalize(kpi_db, TRACE)

    body = check()

    last_job = body.pop("lastJob")
    assert body == HEALTHY
    assert last_job.pop("createdAt") <= last_job.pop("updatedAt")
    metadata = {"totalKPIs": 1, "completedKPIs": 0, "failedKPIs": 0, "environment": "production"}
    assert last_job == {"traceId": TRACE, "status": "triggered", "metadata": metadata}


@pytest.mark.parametrize("url", [f"postgresql://u:{SECRET}@127.0.0.1:1/kpi", None])
def test_unreachable_job_records_degrade_the_status(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, url: str | None
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_KPI_DB", raising=False)
    if url:
        monkeypatch.setenv("AIRFLOW_CONN_KPI_DB", url)
    assert check() == {
        **HEALTHY,
        "status": "degraded",
        "kvStores": {"jobs": False, "config": True},
        "warnings": ["The job records cannot be reached."],
    }
    assert SECRET not in caplog.text


def test_database_without_migrations_counts_as_unreachable(monkeypatch: pytest.MonkeyPatch, database_url: str) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_KPI_DB", database_url)
    assert check()["kvStores"] == {"jobs": False, "config": True}


def test_locked_job_records_count_as_unreachable(
    monkeypatch: pytest.MonkeyPatch, kpi_db: psycopg.Connection, kpi_database_url: str
) -> None:
    check()
    monkeypatch.setattr(health, "QUERY_TIMEOUT", 0.2)
    with psycopg.connect(kpi_database_url) as other:
        other.execute("lock table kpi.jobs")
        assert check()["kvStores"] == {"jobs": False, "config": True}


def test_silent_server_counts_as_unreachable(monkeypatch: pytest.MonkeyPatch, mute_server: int) -> None:
    monkeypatch.setattr(health, "QUERY_TIMEOUT", 0.2)
    monkeypatch.setenv("AIRFLOW_CONN_KPI_DB", f"postgresql://u@127.0.0.1:{mute_server}/kpi?connect_timeout=30")
    assert check()["kvStores"] == {"jobs": False, "config": True}


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("", "There is no KPI registry"),
        ("{", "The KPI registry is not JSON"),
        ("[]", 'The KPI registry is not {"kpis": [...]}'),
        (json.dumps({"kpis": [KPI, KPI, 7]}), "2 invalid entries of the KPI registry are not sent."),
    ],
)
def test_invalid_registry_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, kpi_db: psycopg.Connection, text: str, warning: str
) -> None:
    monkeypatch.setenv(VARIABLE, text)
    body = check()
    (said,) = body.pop("warnings")
    assert said.startswith(warning)
    assert body == {**HEALTHY, "status": "degraded"}


@pytest.mark.usefixtures("metadata_database")
def test_missing_registry_is_a_warning(monkeypatch: pytest.MonkeyPatch, kpi_db: psycopg.Connection) -> None:
    monkeypatch.delenv(VARIABLE)
    (said,) = check()["warnings"]
    assert said.startswith("There is no KPI registry. Nothing was sent. Create the Airflow Variable kpi-registry")


@pytest.mark.usefixtures("no_metadata_database")
def test_both_stores_unreachable(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("AIRFLOW_CONN_KPI_DB", f"postgresql://u:{SECRET}@127.0.0.1:1/kpi")
    assert check() == {
        **HEALTHY,
        "status": "degraded",
        "kvStores": {"jobs": False, "config": False},
        "warnings": ["The job records cannot be reached.", "The KPI registry cannot be reached."],
    }


def test_version_equals_pyprojects(repository: Path) -> None:
    assert f'version = "{HEALTHY["version"]}"' in (repository / "pyproject.toml").read_text()
