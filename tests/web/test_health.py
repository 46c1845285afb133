"""Health: right JSON and 200 whatever is down, cheap, and without a word that strangers should not read."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from airflow.api_fastapi.app import init_plugins
from fastapi import FastAPI
from fastapi.testclient import TestClient

from aggregator.kpi import jobs
from aggregator.kpi.registry import parse
from aggregator.web import health
from tests.kpi_data import TRACE, entry, send

if TYPE_CHECKING:
    from pathlib import Path

KPI = entry(webhookUrl="https://n8n.example.com/webhook/secret-path")
REGISTRY = json.dumps({"kpis": [KPI]})
VARIABLE = "AIRFLOW_VAR_KPI-REGISTRY"
SECRET = "secret-word"


@pytest.fixture(autouse=True)
def _registry(monkeypatch) -> None:
    monkeypatch.setenv(VARIABLE, REGISTRY)


def ask() -> dict[str, Any]:
    response = TestClient(health.app).get("/")
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    assert not re.search(f"{SECRET}|secret-path|://|127.0.0.1|Traceback", response.text)
    answer: dict[str, Any] = response.json()
    assert datetime.fromisoformat(answer.pop("timestamp")).utcoffset() == timedelta()
    assert isinstance(answer.pop("responseTime"), int)
    return answer


HEALTHY = {
    "status": "healthy",
    "worker": "scheduler-worker",
    "version": "0.1.0",
    "kvStores": {"jobs": True, "config": True},
}


def test_never_run_before(kpi_db) -> None:
    assert ask() == HEALTHY


@pytest.mark.parametrize("created_at", ["infinity", "57841-01-01", "2999-01-01"])
def test_job_dated_in_the_future_is_not_the_last_one(kpi_db, created_at: str) -> None:
    insert = """
        insert into kpi.jobs (trace_id, dag_id, run_id, environment, created_at)
        values (%s, 'kpi_dispatch', %s, 'test', %s)
    """
    kpi_db.execute(insert, ["trace_20261115_120000_abcdefgh", "right", "2026-11-15"])
    kpi_db.execute(insert, ["trace_20261115_120000_zzzzzzzz", "wrong", created_at])
    answer = ask()
    assert answer["lastJob"]["traceId"] == "trace_20261115_120000_abcdefgh"


def test_last_job(kpi_db) -> None:
    for suffix in ("00000000", "abc12345"):
        trace_id = TRACE[:-8] + suffix
        jobs.create(kpi_db, trace_id, parse(REGISTRY).kpis, dag_id="d", run_id=suffix, environment="production")
    send(kpi_db, "a")
    jobs.settle(kpi_db, TRACE)

    answer = ask()

    last_job = answer.pop("lastJob")
    assert answer == HEALTHY
    assert last_job.pop("createdAt") <= last_job.pop("updatedAt")
    metadata = {"totalKPIs": 1, "completedKPIs": 0, "failedKPIs": 0, "environment": "production"}
    assert last_job == {"traceId": TRACE, "status": "triggered", "metadata": metadata}


@pytest.mark.parametrize("url", [f"postgresql://u:{SECRET}@127.0.0.1:1/kpi", None])
def test_job_records_are_down(monkeypatch, caplog, url: str | None) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_KPI_DB", raising=False)
    if url:
        monkeypatch.setenv("AIRFLOW_CONN_KPI_DB", url)
    assert ask() == {
        **HEALTHY,
        "status": "degraded",
        "kvStores": {"jobs": False, "config": True},
        "warnings": ["The job records cannot be reached."],
    }
    assert SECRET not in caplog.text


def test_database_that_was_not_migrated(monkeypatch, database_url) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_KPI_DB", database_url)
    assert ask()["kvStores"] == {"jobs": False, "config": True}


def test_job_records_that_hang_are_not_waited_for(monkeypatch, kpi_db, kpi_database_url) -> None:
    ask()
    monkeypatch.setattr(health, "ANSWER_WITHIN", 0.2)
    with psycopg.connect(kpi_database_url) as other:
        other.execute("lock table kpi.jobs")
        assert ask()["kvStores"] == {"jobs": False, "config": True}


def test_server_that_says_nothing_is_not_waited_for(monkeypatch, mute_server: int) -> None:
    monkeypatch.setattr(health, "ANSWER_WITHIN", 0.2)
    monkeypatch.setenv("AIRFLOW_CONN_KPI_DB", f"postgresql://u@127.0.0.1:{mute_server}/kpi?connect_timeout=30")
    assert ask()["kvStores"] == {"jobs": False, "config": True}


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("", "There is no KPI registry"),
        ("{", "The KPI registry is not JSON"),
        ("[]", 'The KPI registry is not {"kpis": [...]}'),
        (json.dumps({"kpis": [KPI, KPI, 7]}), "2 invalid entries of the KPI registry are not sent."),
    ],
)
def test_registry_that_is_broken(monkeypatch, kpi_db, text: str, warning: str) -> None:
    monkeypatch.setenv(VARIABLE, text)
    answer = ask()
    (said,) = answer.pop("warnings")
    assert said.startswith(warning)
    assert answer == {**HEALTHY, "status": "degraded"}


@pytest.mark.usefixtures("metadata_database")
def test_registry_that_is_not_there(monkeypatch, kpi_db) -> None:
    monkeypatch.delenv(VARIABLE)
    (said,) = ask()["warnings"]
    assert said.startswith("There is no KPI registry: create the Airflow Variable kpi-registry")


@pytest.mark.usefixtures("no_metadata_database")
def test_everything_is_down(monkeypatch, caplog) -> None:
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("AIRFLOW_CONN_KPI_DB", f"postgresql://u:{SECRET}@127.0.0.1:1/kpi")
    assert ask() == {
        **HEALTHY,
        "status": "degraded",
        "kvStores": {"jobs": False, "config": False},
        "warnings": ["The job records cannot be reached.", "The KPI registry cannot be reached."],
    }


def test_it_answers_at_its_prefix_beside_everything_else(kpi_db) -> None:
    server = FastAPI()
    init_plugins(server)

    @server.get("/{path:path}")
    def everything_else(path: str) -> str:
        return path

    client = TestClient(server, follow_redirects=False)
    for path in ("/api/health", "/api/health/"):
        assert client.get(path).json()["worker"] == "scheduler-worker"
        assert client.head(path).status_code == 200
    for path in ("/api/v2/dags", "/api/healthy", "/health", "/x/api/health"):
        assert client.get(path).json() == path[1:]
    assert client.get("/api/health/openapi.json").json()["info"]["title"] == "Health"
    assert client.post("/api/health").status_code == 405


def test_version_is_the_repositorys(repository: Path) -> None:
    assert f'version = "{HEALTHY["version"]}"' in (repository / "pyproject.toml").read_text()
