"""Airflow marks a run with a failed task as failed, also after a clear."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pendulum
import pytest
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
from airflow.utils.db import initdb
from airflow.utils.state import DagRunState

from dev.n8n.app import Workflow
from dev.n8n.fixtures import KEY
from tests.bundles import use_bundle
from tests.kpi_data import entry
from tests.market_data import DAY, candles, ingest, register, stored

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    import psycopg

    from dev.n8n.client import N8nControl

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _metadata() -> None:
    initdb()


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> Callable[[str, datetime], tuple[Any, dict[str, str]]]:
    """Run a DAG for a date, always as the same run, and return the states of the run and of its tasks."""
    use_bundle(monkeypatch, "shipped", tmp_path)

    def run(dag_id: str, date: datetime) -> tuple[Any, dict[str, str]]:
        # `dag.test` of Airflow 3.3 fails at the end of a run with a deadline.
        text = (repository / "dags" / f"{dag_id}.py").read_text()
        (tmp_path / f"{dag_id}.py").write_text(f"{text}    dag.deadline = None\n".replace("):\n", ") as dag:\n", 1))
        DagBundlesManager().sync_bundles_to_db()  # type: ignore[no-untyped-call]  # Airflow's
        bag = BundleDagBag(tmp_path, bundle_path=tmp_path, bundle_name="shipped")
        assert not bag.import_errors
        sync_bag_to_db(bag, "shipped", None)
        result = bag.dags[dag_id].test(run_after=date, logical_date=date)
        return result.state, {ti.task_id: ti.state for ti in result.get_task_instances()}

    return run


def test_cleared_ohlcv_run_whose_build_fails_is_a_failed_run(
    run: Any, migrated: Callable[..., psycopg.Connection]
) -> None:
    market: psycopg.Connection = migrated("market", "ops")
    market.execute("select ohlcv.add_candle_partitions(%s, %s)", [DAY, DAY + timedelta(days=1)])
    register(market, {"A": "5m"})
    ingest(market, candles("A", "5m", DAY - timedelta(hours=1), DAY + timedelta(hours=1)))

    assert run("ohlcv_aggregation", DAY) == (
        DagRunState.SUCCESS,
        {"build_bars": "success", "build_shards": "skipped", "finish": "skipped"},
    )
    assert stored(market)
    market.execute("alter table ohlcv.assets rename to gone")
    state, tasks = run("ohlcv_aggregation", DAY)

    assert state == DagRunState.FAILED
    assert tasks == {"build_bars": "failed", "build_shards": "upstream_failed", "finish": "failed"}
    runs = market.execute("select status, error from ops.ops_runlog").fetchall()
    assert [status for status, _ in runs] == ["failed"], "one run, cleared"
    assert "Task build_bars of this run failed" in runs[0][1]
    market.execute("alter table ohlcv.gone rename to assets")
    assert run("ohlcv_aggregation", DAY)[0] == DagRunState.SUCCESS
    assert market.execute("select status, error from ops.ops_runlog").fetchall() == [("success", None)]


def test_cleared_kpi_run_whose_job_cannot_be_created_is_a_failed_run(
    run: Any, migrated: Callable[..., psycopg.Connection], n8n: N8nControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    kpi_db: psycopg.Connection = migrated("kpi", "ops")
    n8n.register({"a": Workflow()})
    monkeypatch.setenv("AIRFLOW_VAR_KPI-REGISTRY", json.dumps({"kpis": [entry("a", webhookUrl=n8n.webhook("a"))]}))
    allowed = {"conn_type": "http", "password": KEY, "extra": {"allowed_origins": [n8n.url]}}
    monkeypatch.setenv("AIRFLOW_CONN_N8N", json.dumps(allowed))
    now = pendulum.now("UTC")

    assert run("kpi_dispatch", now)[0] == DagRunState.SUCCESS
    kpi_db.execute("alter function kpi.create_job rename to gone")
    state, tasks = run("kpi_dispatch", now)

    assert state == DagRunState.FAILED
    assert (tasks["send_kpis"], tasks["settle_job"]) == ("failed", "failed")
    assert len(n8n.executions()) == 1
    kpi_db.execute("alter function kpi.gone rename to create_job")
    assert run("kpi_dispatch", now)[0] == DagRunState.SUCCESS
    assert len(n8n.executions()) == 1
