"""Somebody who receives alerts, and runs to alert about."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from aggregator.alerts import freshness

if TYPE_CHECKING:
    import psycopg
    from pytest_httpserver import HTTPServer
    from sqlalchemy import Engine

PATH = "services/T000/B000/webhook-marker"


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time for every query, so that a busy machine makes no table's freshness unknown."""
    monkeypatch.setattr(freshness, "QUERY_TIMEOUT", timedelta(minutes=2))


@pytest.fixture
def receiver(monkeypatch, httpserver: HTTPServer) -> HTTPServer:
    """What ``alerts_webhook`` leads to; it refuses everything until a test says otherwise."""
    host = httpserver.url_for("").rstrip("/")
    monkeypatch.setenv("AIRFLOW_CONN_ALERTS_WEBHOOK", json.dumps({"conn_type": "http", "host": host, "password": PATH}))
    return httpserver


class AirflowRuns:
    """Writes to Airflow's database what its scheduler and its API would."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def _add(self, row: Any) -> Any:
        from sqlalchemy.orm import Session  # noqa: PLC0415

        with Session(self._engine, expire_on_commit=False) as session:
            row = session.merge(row)
            session.commit()
        return row

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
    ) -> Any:
        """A run; it began a minute before its end and was due a minute earlier, unless the test says otherwise."""
        from airflow.models.dagrun import DagRun  # noqa: PLC0415

        ended = ended or datetime.now(UTC) - timedelta(minutes=5)
        start = ended - timedelta(minutes=1)
        run = DagRun(
            dag_id=dag_id,
            run_id=run_id,
            run_type=run_type,
            run_after=due or start - timedelta(minutes=1),
            start_date=start,
        )
        run.clear_number = clears
        run._state = state
        run.end_date = None if state in {"queued", "running"} else ended
        run.created_dag_version_id = None
        return self._add(run)

    def deadline(self, run: Any, moment: datetime) -> None:
        """A deadline of a run."""
        from sqlalchemy import text  # noqa: PLC0415

        with self._engine.begin() as connection:
            connection.execute(
                text(
                    "insert into deadline"
                    " (id, created_at, last_updated_at, dagrun_id, deadline_time, missed, callback_id)"
                    " values (:id, :now, :now, :run, :moment, true, :id)"
                ),
                {"id": uuid4().hex, "now": datetime.now(UTC), "run": run.id, "moment": moment},
            )

    def task(
        self, run: Any, task_id: str, state: str, error: dict[str, Any] | None = None, *, ended: datetime | None = None
    ) -> None:
        """An instance of a task of a run, with the error that it has noted."""
        from airflow.models.taskinstance import TaskInstance  # noqa: PLC0415
        from airflow.models.xcom import XComModel  # noqa: PLC0415
        from airflow.providers.standard.operators.empty import EmptyOperator  # noqa: PLC0415
        from airflow.sdk import DAG  # noqa: PLC0415
        from sqlalchemy.orm import Session  # noqa: PLC0415

        task = EmptyOperator(task_id=task_id, dag=DAG(run.dag_id, schedule=None))
        instance = TaskInstance(task, dag_version_id=uuid4(), run_id=run.run_id, state=state)
        instance.dag_id = run.dag_id
        instance.start_date = run.start_date
        instance.end_date = ended or run.end_date
        self._add(instance)
        if error is not None:
            with Session(self._engine) as session:
                XComModel.set("error", error, dag_id=run.dag_id, task_id=task_id, run_id=run.run_id, session=session)
                session.commit()

    def audit(self, run: Any, event: str, body: dict[str, Any], *, when: datetime, single: bool = True) -> None:
        """An entry of the audit log, as Airflow's API writes one for each request."""
        from airflow.models.log import Log  # noqa: PLC0415

        entry = Log(event=event, extra=json.dumps({**body, "method": "PATCH"}))
        entry.dag_id = run.dag_id
        entry.run_id = run.run_id if single else None
        entry.dttm = when
        self._add(entry)


@pytest.fixture
def airflow(airflow_database: Engine, ops: psycopg.Connection) -> AirflowRuns:
    """Airflow's database, in which a test can put runs; there have been alerts for a long time."""
    ops.execute("update ops.alerts_begin set begins_at = now() - interval '1 year'")
    return AirflowRuns(airflow_database)
