"""A job is written before anything is sent, and ends with what became of each KPI."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException, TaskDeferred

from aggregator.errors import HardError, TransientError
from aggregator.kpi import jobs
from aggregator.kpi.trace_id import trace_id_of
from aggregator.operators.kpi import CreateKpiJobOperator, SettleKpiJobOperator
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
        self.params = params
        self.xcom: dict[str, Any] = {}
        self.trace_id = trace_id_of(self.dag_run)

    def context(self, task: Any) -> Any:
        instance = SimpleNamespace(
            dag_id="kpi_dispatch",
            task_id=task.task_id,
            run_id=self.dag_run.run_id,
            start_date=datetime.now(UTC),
            xcom_push=self.xcom.__setitem__,
        )
        return {"ti": instance, "task": task, "dag_run": self.dag_run, "params": self.params}

    def create(self) -> list[dict[str, Any]]:
        task = CreateKpiJobOperator(task_id="create_job")
        return task.execute(self.context(task))

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


class TestCreate:
    def test_writes_the_job_and_returns_what_is_to_be_sent(self, kpi_db, registry, monkeypatch, capsys) -> None:
        monkeypatch.setenv("ENVIRONMENT", "production")
        registry(
            entry("a", reportBack=True, metadata={"category": "price"}, description="{{ var.value.secret }}"),
            entry("off", active=False),
            entry("bad", webhookUrl="javascript:alert(1)"),
        )
        run = Run()

        sent = run.create()

        expected = entry("a", reportBack=True, description="{{ var.value.secret }}")
        del expected["active"]
        assert json.loads(json.dumps(sent)) == [expected]
        assert kpi_db.execute("select trace_id, environment, dag_id, run_id from kpi.jobs").fetchone() == (
            run.trace_id,
            "production",
            "kpi_dispatch",
            run.dag_run.run_id,
        )
        assert kpi_db.execute("select kpi_id, status, metadata from kpi.job_kpis").fetchall() == [
            ("a", "pending", {"category": "price"})
        ]
        assert (
            "KPI bad is invalid and not sent: webhookUrl: URL scheme should be 'http' or 'https'"
            in capsys.readouterr().out
        )

    def test_again_is_the_same_job(self, kpi_db, registry) -> None:
        run = Run()
        run.create()
        run.send(kpi_db, "a")
        assert len(run.create()) == 1
        assert stored(kpi_db) == [("a", "triggered")]

    def test_empty_registry_is_a_job_that_says_so(self, kpi_db, registry, capsys) -> None:
        registry()
        run = Run()
        assert run.create() == []
        assert "no active KPIs" in capsys.readouterr().out
        assert run.settle()["status"] == "completed"

    @pytest.mark.parametrize("text", ["", "{", "[]"])
    def test_registry_that_cannot_be_read_leaves_no_job(self, kpi_db, monkeypatch, text: str) -> None:
        monkeypatch.setenv(VARIABLE, text)
        with pytest.raises(HardError, match="Nothing was sent"):
            Run().create()
        assert stored(kpi_db) == []

    def test_database_that_is_down_is_transient(self, registry, monkeypatch) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_KPI_DB", "postgresql://u@127.0.0.1:1/kpi")
        with pytest.raises(TransientError):
            Run().create()

    @pytest.mark.parametrize("run", [{"run_type": "backfill"}, {"age": timedelta(days=91)}], ids=["backfill", "old"])
    def test_what_is_long_past_is_sent_only_if_asked_for(self, kpi_db, registry, run: dict[str, Any]) -> None:
        with pytest.raises(AirflowSkipException):
            Run(**run).create()
        with pytest.raises(AirflowSkipException):
            Run(**run, resend=False).create()
        assert stored(kpi_db) == []
        assert len(Run(**run, resend=True).create()) == 1


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
        old, run = Run(age=timedelta(days=1)), Run()
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
