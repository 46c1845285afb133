"""The example DAG of the documentation loads, and runs against the stand-ins."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.dag_processing.dagbag import DagBag

from aggregator.core import catalog
from aggregator.core.catalog import CATALOG
from dev.n8n.app import Workflow
from dev.n8n.fixtures import KEY
from tests.airflow_context import context

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import psycopg
    from airflow.sdk import DAG

    from dev.analytics_engine.client import AnalyticsEngineControl
    from dev.n8n.client import N8nControl

DAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=2)


@pytest.fixture
def page(repository: Path) -> str:
    return (repository / "docs/extend/write-a-dag.md").read_text()


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


@pytest.fixture
def dag(repository: Path, page: str, monkeypatch: pytest.MonkeyPatch) -> DAG:
    """The example, loaded as Airflow loads it, with the entry of the page in the catalog."""
    entry = eval(f"{{{blocks(page, 'python')[0]}}}", vars(catalog))  # noqa: S307 - a block of our own page
    monkeypatch.setattr(catalog, "CATALOG", {**CATALOG, **entry})
    bag = DagBag(str(repository / "docs/extend/example_dag.py"), collect_dags=True)
    assert bag.import_errors == {}
    return bag.dags["clicks_per_country"]


def test_every_block_of_the_page_is_in_the_example(page: str, repository: Path) -> None:
    example = (repository / "docs/extend/example_dag.py").read_text()
    _, *parts = blocks(page, "python")
    assert [part for part in parts if part not in example] == []
    assert len(parts) == 4


@pytest.mark.slow
def test_example_counts_stores_and_reports(
    dag: Any,
    page: str,
    connection: psycopg.Connection,
    migrated: Callable[..., psycopg.Connection],
    analytics_engine: AnalyticsEngineControl,
    n8n: N8nControl,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    migrated("clicks")
    connection.execute(blocks(page, "sql")[0].encode())
    host, port = analytics_engine.url.rsplit(":", 1)
    account = {"conn_type": "http", "host": host, "port": int(port), "password": "t", "extra": {"account_id": "a"}}
    monkeypatch.setenv("AIRFLOW_CONN_ANALYTICS_ENGINE", json.dumps(account))
    webhooks = {"conn_type": "http", "password": KEY, "extra": {"allowed_origins": [n8n.url]}}
    monkeypatch.setenv("AIRFLOW_CONN_N8N", json.dumps(webhooks))
    n8n.register({"country-report": Workflow()})
    times = [DAY, DAY + timedelta(hours=23), DAY - timedelta(seconds=1), DAY + timedelta(days=1)]
    analytics_engine.write(
        "clicks",
        [
            {"timestamp": f"{time:%Y-%m-%d %H:%M:%S}", "index1": "h", "blob5": country, "double1": 1}
            for time, country in zip(times, ["DE", "DE", "FR", "FR"], strict=True)
        ]
        + [{"timestamp": f"{DAY:%Y-%m-%d} 12:00:00", "index1": "h", "blob5": "US", "double1": 1}],
    )

    def run(task_id: str, **results: Any) -> Any:
        task = dag.get_task(task_id)
        given = context(task, DAY, DAY + timedelta(days=1), **results)
        task.render_template_fields(given)
        return task.execute(given)

    rows = run("count_clicks")
    assert run("store_counts", count_clicks=rows) == {"inserted": 2, "updated": 0, "unchanged": 0, "duplicates": 0}
    assert run("store_counts", count_clicks=rows) == {"inserted": 0, "updated": 0, "unchanged": 2, "duplicates": 0}
    stored = connection.execute("select day, country, clicks from public.clicks_per_country order by country")
    assert stored.fetchall() == [(DAY.date(), "DE", 2), (DAY.date(), "US", 1)]

    send = dag.get_task("send_reports")
    for index, row in enumerate(rows):
        task = send.unmap({"payload": row})
        task.url = n8n.webhook("country-report")
        given = context(task, DAY, DAY + timedelta(days=1))
        given["ti"].map_index, given["ti"].max_tries = index, 5
        assert task.execute(given)["status"] == 200
    assert [execution["body"] for execution in n8n.executions()] == [
        {"day": f"{DAY:%Y-%m-%d}", "country": "DE", "clicks": 2},
        {"day": f"{DAY:%Y-%m-%d}", "country": "US", "clicks": 1},
    ]
