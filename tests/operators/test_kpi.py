"""A job is written before anything is sent, and ends with what became of each KPI."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from aggregator.errors import HardError
from aggregator.kpi import jobs
from aggregator.kpi.trace_id import trace_id_of
from aggregator.operators.kpi import CreateKpiJobOperator, ReadKpiRegistryOperator, SettleKpiJobOperator
from aggregator.triggers.kpi import KpiReportsTrigger

if TYPE_CHECKING:
    import psycopg

VARIABLE = "AIRFLOW_VAR_KPI-REGISTRY"


def entry(id_: str, **more: Any) -> dict[str, Any]:
    url = "https://n8n.example.com/webhook/w"
    return {"id": id_, "name": f"Name of {id_}", "type": "price", "active": True, "webhookUrl": url, **more}


class Run:
    """A run and what its tasks put into XCom."""

    def __init__(self, *, run_type: str = "scheduled", age: timedelta = timedelta(), **params: Any) -> None:
        moment = datetime.now(UTC) - age
        self.dag_run = SimpleNamespace(
            dag_id="kpi_dispatch",
            run_id=f"{run_type}__{moment.isoformat()}",
            logical_date=moment,
            run_after=moment,
            run_type=run_type,
        )
        self.params = {"resend": False, "kpis": [], **params}
        self.xcom: dict[str, Any] = {}
        self.trace_id = trace_id_of(self.dag_run)

    def context(self, task: Any) -> Any:
        instance = SimpleNamespace(
            dag_id="kpi_dispatch",
            task_id=task.task_id,
            run_id=self.dag_run.run_id,
            start_date=datetime.now(UTC),
            xcom_push=self.xcom.__setitem__,
            xcom_pull=lambda **wanted: self.xcom.get(wanted.get("key", "return_value")),
        )
        return {"ti": instance, "task": task, "dag_run": self.dag_run, "params": self.params}

    def create(self) -> None:
        self.xcom["return_value"] = (read := ReadKpiRegistryOperator(task_id="read_registry")).execute(
            self.context(read)
        )
        CreateKpiJobOperator(task_id="create_job").execute(self.context(read))

    def settle(self) -> dict[str, Any]:
        task = SettleKpiJobOperator(task_id="settle_job")
        return task.execute(self.context(task))

    def conclude(self) -> dict[str, Any]:
        task = SettleKpiJobOperator(task_id="settle_job")
        return task.conclude(self.context(task), event={})

    def send(
        self, connection: psycopg.Connection, id_: str, outcome: Any = "triggered", error: str | None = None
    ) -> None:
        assert jobs.claim(connection, self.trace_id, id_, "me") is jobs.Claim.CLAIMED
        jobs.record(connection, self.trace_id, id_, "me", outcome, error=error)


@pytest.fixture
def registry(monkeypatch) -> Any:
    """Sets the Variable."""

    def set_to(*entries: Any) -> None:
        monkeypatch.setenv(VARIABLE, json.dumps({"kpis": entries}))

    set_to(entry("a"))
    return set_to


def stored(connection: psycopg.Connection) -> list[tuple[str, str]]:
    return connection.execute("select kpi_id, status from kpi.job_kpis order by kpi_id").fetchall()


class TestSettle:
    def test_all_went_well(self, kpi_db, registry) -> None:
        registry(entry("a"), entry("b"))
        run = Run()
        run.create()
        run.send(kpi_db, "a")
        run.send(kpi_db, "b")
        assert run.settle() == {
            "trace_id": run.trace_id,
            "status": "triggered",
            "kpis": {"triggered": 2},
            "problems": [],
        }

    def test_fails_with_the_names_of_those_that_did_not(self, kpi_db, registry) -> None:
        registry(*[entry(id_) for id_ in ("a", "b", "c", "d")])
        run = Run()
        run.create()
        run.send(kpi_db, "a")
        run.send(kpi_db, "b", "failed", "The requested webhook is not registered.")
        jobs.claim(kpi_db, run.trace_id, "c", "killed")
        with pytest.raises(HardError) as raised:
            run.settle()
        text = str(raised.value)
        assert f"Job {run.trace_id} is partial: b is failed (The requested webhook is not registered.); " in text
        assert "c is unknown (The task ended" in text
        assert "d is pending;" not in text
        assert "d is pending. " in text
        assert run.xcom["return_value"]["kpis"] == {"failed": 1, "pending": 1, "triggered": 1, "unknown": 1}

    def test_waits_for_reports_without_a_worker(self, kpi_db, registry) -> None:
        registry(entry("a", reportBack=True), entry("b", reportBack=True), entry("c"))
        run = Run()
        run.create()
        for id_ in "abc":
            run.send(kpi_db, id_, "unknown" if id_ == "b" else "triggered")
        with pytest.raises(TaskDeferred) as deferred:
            run.settle()
        assert isinstance(deferred.value.trigger, KpiReportsTrigger)
        assert deferred.value.timeout == timedelta(minutes=35)
        assert deferred.value.method_name == "conclude"
        assert run.trace_id in deferred.value.trigger.serialize()[1].values()

        for id_ in "ab":
            jobs.report(kpi_db, run.trace_id, id_, "completed")
        assert run.conclude()["status"] == "completed"
        assert run.settle()["status"] == "completed"

    def test_gives_up_on_a_report_that_is_overdue(self, kpi_db, registry) -> None:
        registry(entry("a", reportBack=True))
        run = Run()
        run.create()
        run.send(kpi_db, "a")
        kpi_db.execute("update kpi.job_kpis set sent_at = now() - interval '31 minutes'")
        with pytest.raises(HardError, match=r"is timeout: a is timeout \(n8n did not report back within 30 minutes"):
            run.settle()

    def test_deletes_old_records(self, kpi_db, registry) -> None:
        old, run = Run(age=timedelta(days=1), resend=True), Run()
        for each in (old, run):
            each.create()
        run.send(kpi_db, "a")
        kpi_db.execute(
            "update kpi.jobs set created_at = now() - interval '91 days' where trace_id = %s", [old.trace_id]
        )
        run.settle()
        assert kpi_db.execute("select trace_id from kpi.jobs").fetchall() == [(run.trace_id,)]

    def test_without_a_job_is_a_hard_error(self, kpi_db) -> None:
        with pytest.raises(HardError, match="There is no job"):
            Run().settle()
