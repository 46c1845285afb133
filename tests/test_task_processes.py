"""The processes of tasks: what they inherit from the process that forks them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

import aggregator_plugin
from dev import task_process
from dev.n8n.fixtures import KEY
from dev.sample import kpis
from dev.sample.load import load
from dev.task_process import Task

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow.dag_processing.dagbag import DagBag

    from dev.analytics_engine.client import AnalyticsEngineControl
    from dev.n8n.client import N8nControl

NOT_NEEDED = "build_shards"
"""A mapped task without instances: few symbols need no further shards."""


@pytest.fixture
def products(
    database_url: str,
    migrated: Callable[..., psycopg.Connection],
    analytics_engine: AnalyticsEngineControl,
    n8n: N8nControl,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every connection of the tasks, and the sample data."""
    migrated("market", "clicks", "analytics", "telemetry", "kpi", "ops")
    with psycopg.connect(database_url) as connection:
        load(analytics_engine, connection)
    n8n.register(kpis.workflows())
    host, port = analytics_engine.url.rsplit(":", 1)
    connections: dict[str, dict[str, Any]] = {
        "analytics_engine": {"host": host, "port": int(port), "password": "token", "extra": {"account_id": "a"}},
        "n8n": {"password": KEY, "extra": {"allowed_origins": [n8n.url]}},
    }
    for name, fields in connections.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps({"conn_type": "http", **fields}))
    # Only the first index of a mapped task runs.
    monkeypatch.setenv("AIRFLOW_VAR_KPI-REGISTRY", json.dumps({"kpis": kpis.registry(n8n.url)["kpis"][:1]}))


@pytest.mark.slow
@pytest.mark.usefixtures("products")
@pytest.mark.parametrize("program", ["scheduler", "celery"])
def test_task_process_imports_only_its_dag_file(program: str, dag_bag: DagBag) -> None:
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    tasks = []
    for dag_id, dag in sorted(dag_bag.dags.items()):
        # KPIs are not sent on past days.
        start, end = (now, now) if dag_id == "kpi_dispatch" else (midnight - timedelta(days=1), midnight)
        tasks += [
            Task(dag_id, task.task_id, start.isoformat(), end.isoformat(), map_index=0 if task.is_mapped else -1)
            for task in dag.topological_sort()  # type: ignore[no-untyped-call]  # Airflow's
            if task.task_id != NOT_NEEDED
        ]

    results = task_process.run(program, tasks)

    assert [result.output for result in results if result.state not in {"success", "skipped"}] == []
    # The first process also resolves the first host name; a DAG file's module has a name with a hash.
    inherited = {"encodings.idna", "stringprep"}
    assert {
        result.task_id: modules
        for result in results
        if (modules := {name for name in result.imported if not name.startswith("unusual_prefix_")} - inherited)
    } == {}


@pytest.mark.parametrize(
    ("command", "executor", "prepared"),
    [
        ("airflow scheduler", "LocalExecutor", True),
        ("airflow scheduler", "CeleryExecutor", False),
        ("airflow celery worker", "CeleryExecutor", True),
        ("airflow dag-processor", "CeleryExecutor", True),
        ("airflow triggerer", "LocalExecutor", False),
        ("airflow dags test", "LocalExecutor", False),
        ("airflow api-server", "LocalExecutor", False),
    ],
)
def test_processes_that_fork_tasks_are_those_that_import_what_tasks_need(
    command: str, executor: str, prepared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)

    assert aggregator_plugin.forks_tasks(command.split()) is prepared


def test_imports_before_the_fork_start_no_thread_and_connect_to_nothing(repository: Path) -> None:
    """A fork copies one thread only, and shares the sockets."""
    done = load_plugins("airflow scheduler", repository)

    assert "aggregator.kpi.operators" in done["modules"]
    assert (done["errors"], done["threads"], done["connections"]) == ({}, 1, [])
    assert [name for name in done["modules"] if name.startswith(("fastapi", "starlette"))] == []


def test_module_that_cannot_be_imported_leaves_the_plugin_in_place(repository: Path) -> None:
    broken = "aggregator.kpi.operators"
    done = load_plugins("airflow dag-processor", repository, BROKEN=broken)

    assert broken not in done["modules"]
    assert "aggregator.ohlcv.operators" in done["modules"]
    assert done["errors"] == {}
    assert f"{broken} cannot be imported. Tasks that need it will fail." in done["output"]


LOAD_PLUGINS = """
import json, os, sys, threading
connections = []
sys.addaudithook(lambda event, args: connections.append(str(args[1])) if event == "socket.connect" else None)
if broken := os.environ.get("BROKEN"):
    sys.modules[broken] = None
from airflow import plugins_manager
before = set(sys.modules)
plugins_manager.integrate_listener_plugins(type("Listeners", (), {"add_listener": print}))
print(json.dumps({
    "modules": [name for name, module in sys.modules.items() if module and name not in before],
    "errors": plugins_manager.get_import_errors(),
    "threads": threading.active_count(),
    "connections": connections,
}))
"""


def load_plugins(command: str, repository: Path, **environment: str) -> dict[str, Any]:
    """Load Airflow's plugins as the process of a command does; return what changed."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD_PLUGINS, *command.split()[1:]],
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        text=True,
        cwd=repository,
    )
    return {**json.loads(done.stdout.splitlines()[-1]), "output": done.stdout + done.stderr}
