"""FinalizeKpiJobOperator: deferral, summary and pruning."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from aggregator.kpi import jobs
from aggregator.kpi.trigger import KpiReportsTrigger
from tests.kpi_data import NOON, Run, create, send

if TYPE_CHECKING:
    import psycopg
    from airflow.dag_processing.dagbag import DagBag


@pytest.fixture
def run(dag_bag: DagBag) -> Run:
    return Run(dag_bag.dags["kpi_dispatch"])


def conclude(run: Run) -> Any:
    """Resume the task as Airflow does after the deferral."""
    return run.dag.get_task("settle_job").conclude(run.context("settle_job"), event={})


def test_finalize_returns_the_summary(kpi_db: psycopg.Connection[Any], run: Run) -> None:
    create(kpi_db, "a", "b", trace_id=run.trace_id)
    for id_ in ("a", "b"):
        send(kpi_db, id_, trace_id=run.trace_id)
    assert run.finalize() == {
        "trace_id": run.trace_id,
        "status": "triggered",
        "kpis": {"triggered": 2},
        "problems": [],
    }


def test_finalize_defers_while_reports_are_missing(kpi_db: psycopg.Connection[Any], run: Run) -> None:
    create(kpi_db, "a", "b", trace_id=run.trace_id, report_back=True)
    send(kpi_db, "a", trace_id=run.trace_id)
    send(kpi_db, "b", "unknown", trace_id=run.trace_id)
    with pytest.raises(TaskDeferred) as deferred:
        run.finalize()
    assert isinstance(deferred.value.trigger, KpiReportsTrigger)
    assert deferred.value.timeout == timedelta(minutes=35)
    assert deferred.value.method_name == "conclude"
    assert run.trace_id in deferred.value.trigger.serialize()[1].values()

    for id_ in ("a", "b"):
        jobs.report(kpi_db, run.trace_id, id_, "completed")
    assert conclude(run)["status"] == "completed"
    assert run.finalize()["status"] == "completed"


def test_finalize_deletes_old_jobs(kpi_db: psycopg.Connection[Any], run: Run) -> None:
    old = Run(run.dag, NOON - timedelta(days=91))
    for each in (old, run):
        create(kpi_db, trace_id=each.trace_id)
    kpi_db.execute("update kpi.jobs set created_at = now() - interval '91 days' where trace_id = %s", [old.trace_id])
    run.finalize()
    assert kpi_db.execute("select trace_id from kpi.jobs").fetchall() == [(run.trace_id,)]
