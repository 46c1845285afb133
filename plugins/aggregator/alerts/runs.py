"""Runs as Airflow's database has them, for the watch: it needs no scheduler and no callback."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.models.dagrun import DagRun
from airflow.models.deadline import Deadline
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import func, or_, select
from sqlalchemy.exc import SQLAlchemyError

from aggregator.alerts.deadline import UNFINISHED
from aggregator.core import failures
from aggregator.core.errors import AggregatorError
from aggregator.core.failures import Failure

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import datetime

    from sqlalchemy.orm import Session

SUCCESS, FAILED, SCHEDULED = "success", "failed", "scheduled"


def by_id(dag_id: str, run_ids: Collection[str]) -> dict[str, DagRun]:
    """Runs of a DAG, by their ids; those that were deleted are missing.

    Args:
        dag_id: The DAG.
        run_ids: Which runs.

    Raises:
        AggregatorError: Airflow's database did not answer.
    """
    query = select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id.in_(run_ids))
    with _session() as session:
        return {run.run_id: run for run in session.scalars(query)}


def failed_since(dag_ids: Collection[str], since: datetime, until: datetime) -> list[tuple[DagRun, datetime]]:
    """Runs that failed within a time, each with its end, the oldest first.

    Args:
        dag_ids: Of these DAGs.
        since: When the time begins.
        until: When it ends.

    Raises:
        AggregatorError: Airflow's database did not answer.
    """
    query = (
        select(DagRun, DagRun.end_date)
        .where(DagRun.dag_id.in_(dag_ids), DagRun.state == FAILED, DagRun.end_date.between(since, until))
        .order_by(DagRun.end_date)
    )
    with _session() as session:
        return [(run, end) for run, end in session.execute(query) if end]


def late_since(dag_ids: Collection[str], since: datetime, until: datetime) -> list[tuple[DagRun, datetime]]:
    """Runs at work whose deadline passed within a time, each with its deadline.

    A run that was cleared is not late: somebody started it after its deadline.

    Args:
        dag_ids: Of these DAGs.
        since: When the time begins.
        until: When it ends.

    Raises:
        AggregatorError: Airflow's database did not answer.
    """
    query = (
        select(DagRun, Deadline.deadline_time)
        .join(Deadline, Deadline.dagrun_id == DagRun.id)
        .where(
            DagRun.dag_id.in_(dag_ids),
            DagRun.state.in_(UNFINISHED),
            DagRun.clear_number == 0,
            Deadline.deadline_time.between(since, until),
        )
        .order_by(Deadline.deadline_time)
    )
    with _session() as session:
        return [(run, deadline) for run, deadline in session.execute(query)]


def newest_success(dag_id: str) -> DagRun | None:
    """The newest scheduled run of a DAG that has succeeded by itself, not by a mark.

    Args:
        dag_id: The DAG.

    Raises:
        AggregatorError: Airflow's database did not answer.
    """
    query = (
        select(DagRun)
        .where(DagRun.dag_id == dag_id, DagRun.run_type == SCHEDULED, DagRun.state == SUCCESS)
        .order_by(DagRun.run_after.desc())
        .limit(10)
    )
    with _session() as session:
        newest = list(session.scalars(query))
    by_hand = marked(newest, SUCCESS)
    return next((run for run in newest if run.run_id not in by_hand), None)


def marked(runs: Collection[DagRun], state: str) -> set[str]:
    """The ids of those runs that somebody, or a task of which somebody, marked with a state in the UI or by the API.

    Airflow's audit log has the marks. One that was set before the run or the task began its last try does not count.

    Args:
        runs: Runs of one DAG.
        state: ``success`` or ``failed``.

    Raises:
        AggregatorError: Airflow's database did not answer.
    """
    if not runs:
        return set()
    ids = {run.run_id: run.start_date for run in runs}
    dag_ids = {run.dag_id for run in runs}
    # A request that changes several has no run in its own columns.
    entries_of_runs = select(Log.dttm, Log.run_id, Log.task_id, Log.extra).where(
        Log.event.in_(_MARKS),
        Log.dag_id.in_({*dag_ids, "~"}),
        or_(Log.run_id.in_(ids), Log.run_id.is_(None), Log.run_id == "~"),
    )
    begun = select(TaskInstance.run_id, TaskInstance.task_id, func.max(TaskInstance.start_date)).where(
        TaskInstance.dag_id.in_(dag_ids), TaskInstance.run_id.in_(ids)
    )
    with _session() as session:
        entries = session.execute(entries_of_runs).all()
        if not entries:
            return set()
        starts: dict[tuple[str, str | None], datetime | None] = {
            (run_id, task_id): start
            for run_id, task_id, start in session.execute(begun.group_by(TaskInstance.run_id, TaskInstance.task_id))
        }
    starts.update({(run_id, None): start for run_id, start in ids.items()})
    return {
        run_id
        for when, *entry in entries
        for run_id, task_id, given in _marks(*entry)
        if when and run_id in ids and given == state
        if (start := starts.get((run_id, task_id))) is None or when >= start
    }


def failure_of(run: Any) -> Failure | None:
    """The task of a run that failed first.

    Args:
        run: The run, with ``dag_id`` and ``run_id``.

    Returns:
        The failure; None if no task has failed, as when the run itself was given up.

    Raises:
        AggregatorError: Airflow's database did not answer.
    """
    query = (
        select(TaskInstance.task_id, TaskInstance.map_index)
        .where(TaskInstance.dag_id == run.dag_id, TaskInstance.run_id == run.run_id, TaskInstance.state == FAILED)
        .order_by(TaskInstance.end_date, TaskInstance.map_index)
    )
    with _session() as session:
        failed = session.execute(query).all()
        if not failed:
            return None
        task_id, map_index = failed[0]
        noted = XComModel.get_many(
            run_id=run.run_id, key=failures.KEY, dag_ids=run.dag_id, task_ids=task_id, map_indexes=map_index
        )
        stored = session.scalars(noted).first()
        value = None if stored is None else XComModel.deserialize_value(stored)
    return Failure.of(task_id, sum(other == task_id for other, _ in failed), value)


_MARKS = (
    "patch_dag_run",
    "bulk_dag_runs",
    "patch_task_instance",
    "bulk_task_instances",
    "patch_task_group_instances",
)
"""Events of Airflow's audit log that set a state."""


def _marks(run_id: str | None, task_id: str | None, extra: str | None) -> Iterator[tuple[str, str | None, str]]:
    """What an entry of the audit log marks: the run, the task if it is one, and the new state."""
    body = json.loads(extra or "{}")
    marks: list[Any] = [{"dag_run_id": run_id, "task_id": task_id, **body}]
    marks += [entity for action in body.get("actions", []) for entity in action.get("entities", [])]
    for mark in marks:
        # Entities to be deleted are plain ids.
        if isinstance(mark, dict) and (state := mark.get("new_state") or mark.get("state")) and mark.get("dag_run_id"):
            yield mark["dag_run_id"], mark.get("task_id"), state.lower()


@contextmanager
def _session() -> Iterator[Session]:
    try:
        with create_session(scoped=False) as session:
            # What is read is used after the session.
            session.expire_on_commit = False
            yield session
    except SQLAlchemyError as error:
        # Its text names the database.
        msg = f"Airflow's database did not answer ({type(error).__name__}). Alerts about runs stay as they are."
        raise AggregatorError(msg) from None
