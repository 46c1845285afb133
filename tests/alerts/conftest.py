"""A webhook that receives alerts, and Airflow's own database with runs to alert about."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from aggregator.alerts import freshness
from aggregator.alerts.deadline import alert_after

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg
    from airflow.models.dagrun import DagRun
    from airflow.serialization.definitions.dag import SerializedDAG
    from fastapi.testclient import TestClient
    from pytest_httpserver import HTTPServer
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

    from dev.postgres import Postgres

PATH = "services/T000/B000/webhook-marker"


@pytest.fixture(autouse=True)
def _no_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every query time, so that no table's freshness is unknown on a busy machine."""
    for name in ("QUERY_TIMEOUT", "TIME_LIMIT"):
        monkeypatch.setattr(freshness, name, timedelta(minutes=2))


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch, httpserver: HTTPServer) -> HTTPServer:
    """The receiver of ``alerts_webhook``. It refuses every request until a test sets a response."""
    host = httpserver.url_for("").rstrip("/")
    monkeypatch.setenv("AIRFLOW_CONN_ALERTS_WEBHOOK", json.dumps({"conn_type": "http", "host": host, "password": PATH}))
    return httpserver


class AirflowRuns:
    """Runs in Airflow's database, written by Airflow's own models."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._logical_dates = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hour) for hour in count())

    def session(self) -> Session:
        """A session that keeps its rows usable after it ends."""
        from sqlalchemy.orm import Session  # noqa: PLC0415

        return Session(self._engine, expire_on_commit=False)

    def _dag(self, dag_id: str, session: Session) -> SerializedDAG:
        from airflow.models.dag import DagModel  # noqa: PLC0415
        from airflow.models.dagbundle import DagBundleModel  # noqa: PLC0415
        from airflow.models.serialized_dag import SerializedDagModel  # noqa: PLC0415
        from airflow.providers.standard.operators.empty import EmptyOperator  # noqa: PLC0415
        from airflow.sdk import DAG, TaskGroup  # noqa: PLC0415
        from airflow.serialization.serialized_objects import LazyDeserializedDAG  # noqa: PLC0415

        stored = SerializedDagModel.get(dag_id, session=session)
        if stored is None:
            with DAG(dag_id, schedule="@hourly", start_date=datetime(2026, 1, 1, tzinfo=UTC)) as declared:
                EmptyOperator(task_id="plan")
                EmptyOperator(task_id="finish")
                with TaskGroup("group"):
                    EmptyOperator(task_id="work")
            session.merge(DagBundleModel(name="bundle"))
            session.flush()
            session.add(
                DagModel(  # type: ignore[no-untyped-call]
                    dag_id=dag_id, bundle_name="bundle", fileloc="job.py"
                )
            )
            session.flush()
            SerializedDagModel.write_dag(LazyDeserializedDAG.from_dag(declared), bundle_name="bundle", session=session)
            stored = SerializedDagModel.get(dag_id, session=session)
        assert stored
        return stored.dag

    def run(
        self,
        run_id: str,
        state: str,
        *,
        dag_id: str = "click_rollups",
        run_type: str = "scheduled",
        ended: datetime | None = None,
        due: datetime | None = None,
        clears: int = 0,
    ) -> DagRun:
        """Add a run. It started a minute before its end, and was due a minute before its start.

        Args:
            run_id: Its id.
            state: Its state.
            dag_id: Its DAG, which is added if it is missing.
            run_type: As Airflow has it.
            ended: Its end; five minutes ago by default. Unfinished runs have none.
            due: When it was due.
            clears: How often it was cleared.
        """
        from airflow.utils.state import DagRunState  # noqa: PLC0415
        from airflow.utils.types import DagRunTriggeredByType, DagRunType  # noqa: PLC0415

        ended = ended or datetime.now(UTC) - timedelta(minutes=5)
        start = ended - timedelta(minutes=1)
        logical_date = next(self._logical_dates)
        with self.session() as session:
            run: DagRun = self._dag(dag_id, session).create_dagrun(
                run_id=run_id,
                logical_date=logical_date,
                data_interval=(logical_date, logical_date + timedelta(hours=1)),
                run_after=due or start - timedelta(minutes=1),
                run_type=DagRunType(run_type),
                triggered_by=DagRunTriggeredByType.TEST,
                state=DagRunState.RUNNING,
                session=session,
            )
            run.start_date, run.clear_number = start, clears
            run._state = state
            run.end_date = None if state in {"queued", "running"} else ended
            session.commit()
        return run

    def set_state(self, run: DagRun, state: str) -> None:
        """Finish a run again, as after a clear."""
        with self.session() as session:
            session.merge(run)._state = state
            session.commit()

    def deadline(self, run: DagRun, deadline: datetime) -> None:
        """Add a deadline to a run."""
        from airflow.models.deadline import Deadline  # noqa: PLC0415

        callback = alert_after(timedelta()).callback
        with self.session() as session:
            session.add(Deadline(deadline, callback, run.id, None, dag_id=run.dag_id))
            session.commit()

    def task(
        self,
        run: DagRun,
        task_id: str,
        state: str,
        error: dict[str, Any] | None = None,
        *,
        ended: datetime | None = None,
    ) -> None:
        """Finish a task of a run, with the error that it has stored. A failed task was killed, as Airflow sees it."""
        from airflow.models.xcom import XComModel  # noqa: PLC0415

        with self.session() as session:
            task = next(task for task in session.merge(run).task_instances if task.task_id == task_id)
            if state == "failed":
                task.fetch_handle_failure_context(task, None, session=session)
            task.state, task.start_date, task.end_date = state, run.start_date, ended or run.end_date
            session.flush()
            if error is not None:
                XComModel.set("error", error, dag_id=run.dag_id, task_id=task_id, run_id=run.run_id, session=session)
            session.commit()

    def retry(self, run: DagRun) -> None:
        """Start another try of every task of a run."""
        from airflow.models.taskinstance import TaskInstance  # noqa: PLC0415
        from sqlalchemy import update  # noqa: PLC0415

        with self.session() as session:
            tasks = update(TaskInstance).filter_by(dag_id=run.dag_id, run_id=run.run_id)
            session.execute(tasks.values(try_number=TaskInstance.try_number + 1))
            session.commit()

    def date_audit_log(self, ts: datetime) -> None:
        """Change the time of all entries of the audit log."""
        from airflow.models.log import Log  # noqa: PLC0415
        from sqlalchemy import update  # noqa: PLC0415

        with self.session() as session:
            session.execute(update(Log).values(dttm=ts))
            session.commit()


@pytest.fixture(scope="session")
def airflow_database_engine(postgres: Postgres) -> Iterator[Engine]:
    """Airflow's own database on PostgreSQL, with all tables, one for all tests."""
    from airflow.models import Base, import_all_models  # noqa: PLC0415
    from airflow.utils.db import synchronize_log_template  # noqa: PLC0415
    from sqlalchemy import NullPool, create_engine  # noqa: PLC0415
    from sqlalchemy.orm import Session  # noqa: PLC0415

    import_all_models()  # type: ignore[no-untyped-call]
    name = f"test_airflow_{os.getpid()}"
    url = postgres.ensure_database(name)
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg2://"), poolclass=NullPool)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        synchronize_log_template(session=session)
        session.commit()
    yield engine
    engine.dispose()
    postgres.drop_database(name)


@pytest.fixture
def airflow(
    monkeypatch: pytest.MonkeyPatch, airflow_database_engine: Engine, ops: psycopg.Connection
) -> Iterator[AirflowRuns]:
    """Airflow's database without runs. Alerts exist since a year ago."""
    from airflow import settings  # noqa: PLC0415
    from sqlalchemy import text  # noqa: PLC0415
    from sqlalchemy.orm import sessionmaker  # noqa: PLC0415

    for name in ("Session", "NonScopedSession"):
        monkeypatch.setattr(settings, name, sessionmaker(airflow_database_engine))
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    ops.execute("update ops.alerts_begin set begins_at = now() - interval '1 year'")
    yield AirflowRuns(airflow_database_engine)
    with airflow_database_engine.begin() as connection:
        connection.execute(text("truncate dag_run, log, callback cascade"))


@pytest.fixture(scope="module")
def airflow_api_app() -> Iterator[TestClient]:
    """Airflow's API server, which gives every caller all rights."""
    from airflow.api_fastapi.app import create_app  # noqa: PLC0415
    from fastapi.testclient import TestClient  # noqa: PLC0415

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", "True")
        environment.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "a secret of these tests only, with more than 64 bytes" * 2)
        with TestClient(create_app()) as client:
            yield client


@pytest.fixture
def airflow_api(airflow: AirflowRuns, airflow_api_app: TestClient) -> TestClient:
    """Airflow's API server on the database of ``airflow``."""
    return airflow_api_app
