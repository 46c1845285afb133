"""Counts of a task, as log fields and as Airflow metrics."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from airflow.sdk.observability import stats

from aggregator.core import metrics
from aggregator.ohlcv.operators import report_totals

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag

RESULT = {"read": 3, "inserted": 2, "suspicious": True, "kpiId": "x", "errors": [], "retryCount": 0}
TAGS = {"dag_id": "d", "task_id": "t"}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Calls of Airflow's metrics functions."""
    sent: list[tuple[Any, ...]] = []
    monkeypatch.setattr(stats, "incr", lambda name, count, tags: sent.append((name, count, tags)))
    monkeypatch.setattr(stats, "timing", lambda name, _, tags: sent.append((name, tags)))
    return sent


def context(**params: Any) -> Any:
    started = datetime.now(UTC) - timedelta(seconds=2)
    return {"ti": SimpleNamespace(**TAGS, run_id="r", start_date=started), "params": params}


def test_counts_of_a_result_become_metrics_and_fields(sent: Any) -> None:
    with structlog.testing.capture_logs() as logs:
        metrics.report(context(), RESULT)
    assert sent == [
        ("aggregator.rows.read", 3, TAGS),
        ("aggregator.rows.inserted", 2, TAGS),
        ("aggregator.requests.repeated", 0, TAGS),
        ("aggregator.task.duration", TAGS),
    ]
    (line,) = logs
    assert line.pop("seconds") >= 2
    assert line == {
        "event": "Task finished", "log_level": "info", **TAGS, "run_id": "r", "read": 3, "inserted": 2, "retryCount": 0
    }  # fmt: skip


@pytest.mark.parametrize(
    ("report", "result"), [(metrics.report, {**RESULT, "dry_run": True}), (metrics.report_sums, RESULT)]
)
def test_counts_of_dry_runs_and_sums_are_only_logged(sent: Any, report: Any, result: dict[str, Any]) -> None:
    with structlog.testing.capture_logs() as logs:
        report(context(), result)
    assert sent == [("aggregator.task.duration", TAGS)]
    assert logs[0]["inserted"] == 2


def test_run_with_the_param_dry_run_counts_nothing(sent: Any) -> None:
    metrics.report(context(dryRun=True), RESULT)
    assert sent == [("aggregator.task.duration", TAGS)]


def test_dry_run_of_the_result_overrides_the_param(sent: Any) -> None:
    """OHLCV's param is true by default and applies only to rebuilds."""
    metrics.report(context(dryRun=True), {**RESULT, "dry_run": False})
    assert ("aggregator.rows.inserted", 2, TAGS) in sent


def test_totals_of_a_run_that_one_task_built_become_metrics(sent: Any) -> None:
    report_totals(context() | {"task": SimpleNamespace(totals=RESULT)}, [])
    assert ("aggregator.rows.inserted", 2, TAGS) in sent


def test_bars_are_counted_only_by_the_tasks_that_build_them(dag_bag: DagBag) -> None:
    dag: Any = dag_bag.dags["ohlcv_aggregation"]
    assert dag.get_task("build_bars")._post_execute_hook is report_totals
    assert dag.get_task("build_shards").partial_kwargs["post_execute"] is metrics.report
    assert dag.get_task("finish")._post_execute_hook is metrics.report_sums


@pytest.mark.parametrize("result", [None, [{"inserted": 1}], "inserted", {"inserted": True}, {"password": 7}])
def test_values_that_are_not_counts_are_left_out(result: object) -> None:
    assert metrics.counts(result) == {}


def test_metric_names_are_unique() -> None:
    names = [name for name, _ in metrics.COUNTERS.values()]
    assert len(set(names)) == len(names)
