"""Deadlines: which runs have one, when it is, and the alert about a missed one."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.models.dagrun import DagRun
from airflow.models.tasklog import LogTemplate
from airflow.serialization.decoders import decode_deadline_alert, decode_deadline_reference
from airflow.serialization.encoders import encode_deadline_alert, encode_deadline_reference
from airflow.utils.types import DagRunType
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from aggregator.alerts.deadline import DagRunDue, alert_after, notify_late
from aggregator.alerts.store import Kind, open_alerts

if TYPE_CHECKING:
    import psycopg

HOUR = timedelta(hours=1)


@pytest.fixture
def session() -> Any:
    """A session on an empty database with Airflow's table of runs."""
    engine = create_engine("sqlite://")
    DagRun.metadata.create_all(engine, [DagRun.__table__, LogTemplate.__table__])
    with Session(engine) as session:
        yield session
    engine.dispose()


def deadline(session: Session, run_type: DagRunType, due: datetime) -> datetime | None:
    """The deadline that Airflow's scheduler computes from the serialized DAG."""
    run = DagRun(dag_id="job", run_id="run", run_type=run_type, run_after=due)
    session.add(run)
    session.flush()
    alert = decode_deadline_alert(encode_deadline_alert(alert_after(HOUR)))
    time: datetime | None = alert.reference.evaluate_with(
        session=session, interval=alert.interval, dag_id="job", run_id="run"
    )
    return time


def test_scheduled_run_has_a_deadline_after_it_was_due(session: Session) -> None:
    due = datetime.now(UTC) - HOUR / 2
    assert deadline(session, DagRunType.SCHEDULED, due) == due + HOUR


@pytest.mark.parametrize("run_type", [DagRunType.BACKFILL_JOB, DagRunType.MANUAL])
def test_manual_run_and_backfill_have_no_deadline(session: Session, run_type: DagRunType) -> None:
    assert deadline(session, run_type, datetime.now(UTC)) is None


def test_run_created_after_its_deadline_has_none(session: Session) -> None:
    assert deadline(session, DagRunType.SCHEDULED, datetime.now(UTC) - 2 * HOUR) is None


def missed(state: str) -> dict[str, Any]:
    return {
        "dag_run": {
            "dag_id": "click_rollups",
            "dag_run_id": "scheduled__2026-11-16T01:00:00+00:00",
            "run_after": "2026-11-16T01:00:00Z",
            "data_interval_start": "2026-11-15T00:00:00Z",
            "data_interval_end": "2026-11-16T00:00:00Z",
            "state": state,
        },
        "deadline": {"id": "x", "deadline_time": datetime(2026, 11, 16, 2, tzinfo=UTC)},
    }


@pytest.mark.parametrize("state", ["queued", "running"])
def test_unfinished_run_after_its_deadline_raises_one_alert(ops: psycopg.Connection, state: str) -> None:
    asyncio.run(notify_late(missed(state)))
    asyncio.run(notify_late(missed(state)))
    (alert,) = open_alerts()
    assert (alert.kind, alert.subject, alert.since) == (
        Kind.LATE,
        "click_rollups",
        datetime(2026, 11, 16, 2, tzinfo=UTC),
    )
    ((text,),) = ops.execute("select text from ops.alert_messages").fetchall()
    assert text.startswith(
        "WARNING LATE: click_rollups (window 2026-11-15 00:00 to 2026-11-16 00:00 UTC) has not finished by its "
        "deadline, 2026-11-16 02:00 UTC. "
        f"Run scheduled__2026-11-16T01:00:00+00:00, due 2026-11-16 01:00 UTC, is {state}. "
    )


@pytest.mark.parametrize("state", ["failed", "success"])
def test_finished_run_raises_no_late_alert(ops: psycopg.Connection, state: str) -> None:
    asyncio.run(notify_late(missed(state)))
    assert open_alerts() == []


def test_name_of_the_reference_fits_the_sentence_of_the_ui() -> None:
    # "Must complete within an hour of {reference}".
    encoded = encode_deadline_reference(alert_after(timedelta(hours=1)).reference)
    assert encoded["reference_type"] == "the time it is due"
    assert decode_deadline_reference(encoded).inner_ref == DagRunDue(timedelta(hours=1))
