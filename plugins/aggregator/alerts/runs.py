"""Queries on the runs in Airflow's database. The watch needs neither the scheduler nor callbacks.

All raise an AggregatorError if the database does not respond.
"""

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
from sqlalchemy import and_, func, or_, select
from sqlalchemy.exc import SQLAlchemyError

from aggregator.alerts.deadline import UNFINISHED
from aggregator.core import failures
from aggregator.core.errors import AggregatorError
from aggregator.core.failures import Failure

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import datetime

    from sqlalchemy.orm import InstrumentedAttribute, Session

SUCCESS, FAILED, SCHEDULED = "success", "failed", "scheduled"

_MARKS = ("patch_dag_run", "bulk_dag_runs", "patch_task_instance", "patch_task_group_instances")
"""Events of Airflow's audit log that set a state."""

_FAILURES = (FAILED, "up_for_retry")
"""Its events for a try that failed."""

_TRY_KEY = ("dag_id", "run_id", "task_id", "map_index", "try_number")
"""Columns that identify a try of a task instance."""


def by_id(dag_id: str, run_ids: Collection[str]) -> dict[str, DagRun]:
    """Runs of a DAG, by id. Deleted runs are missing."""
    query = select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id.in_(run_ids))
    with _session() as session:
        return {run.run_id: run for run in session.scalars(query)}


def failed_between(dag_ids: Collection[str], start: datetime, end: datetime) -> list[tuple[DagRun, datetime]]:
    """Runs that failed within a time range, each with its end, the oldest first."""
    query = select(DagRun, DagRun.end_date).where(DagRun.state == FAILED)
    return _in_order(query, DagRun.end_date, dag_ids, start, end)


def late_between(dag_ids: Collection[str], start: datetime, end: datetime) -> list[tuple[DagRun, datetime]]:
    """Unfinished runs whose deadline passed within a time range, each with its deadline, the oldest first.

    A cleared run is not late: somebody started it after its deadline.
    """
    query = (
        select(DagRun, Deadline.deadline_time)
        .join(Deadline, Deadline.dagrun_id == DagRun.id)
        .where(DagRun.state.in_(UNFINISHED), DagRun.clear_number == 0)
    )
    return _in_order(query, Deadline.deadline_time, dag_ids, start, end)


def _in_order(
    query: Any, time: InstrumentedAttribute[Any], dag_ids: Collection[str], start: datetime, end: datetime
) -> list[tuple[DagRun, datetime]]:
    query = query.where(DagRun.dag_id.in_(dag_ids), time.between(start, end)).order_by(time)
    with _session() as session:
        return [(run, at) for run, at in session.execute(query)]


def newest_success(dag_id: str) -> DagRun | None:
    """The newest scheduled run of a DAG that succeeded without being marked."""
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
    """The ids of the runs that a user marked with a state, or whose tasks a user marked, in the UI or by the API.

    A mark before the start of the last try does not count.
    """
    if not runs:
        return set()
    ids = {run.run_id: run.start_date for run in runs}
    dag_ids = {run.dag_id for run in runs}
    entries_of_runs = select(Log.dttm, Log.run_id, Log.task_id, Log.extra).where(
        Log.event.in_(_MARKS),
        Log.dag_id.in_({*dag_ids, "~"}),
        # A request for several runs has no run id in the columns.
        or_(Log.run_id.in_(ids), Log.run_id.is_(None), Log.run_id == "~"),
    )
    of_runs = (TaskInstance.dag_id.in_(dag_ids), TaskInstance.run_id.in_(ids))
    start_of_tasks = (
        select(TaskInstance.run_id, TaskInstance.task_id, func.max(TaskInstance.start_date))
        .where(*of_runs)
        .group_by(TaskInstance.run_id, TaskInstance.task_id)
    )
    # Airflow logs no bulk update of tasks. It logs each failed try, also of a killed task. So a task that failed in its
    # last try and has another state was marked.
    not_logged = (
        select(TaskInstance.run_id)
        .join(Log, and_(*(getattr(Log, key) == getattr(TaskInstance, key) for key in _TRY_KEY)))
        .where(*of_runs, TaskInstance.state == state, TaskInstance.state != FAILED, Log.event.in_(_FAILURES))
    )
    with _session() as session:
        entries = session.execute(entries_of_runs).all()
        starts: dict[tuple[str, str | None], datetime | None] = {
            (run_id, task_id): start for run_id, task_id, start in session.execute(start_of_tasks)
        }
        found = set(session.scalars(not_logged))
    starts.update({(run_id, None): start for run_id, start in ids.items()})
    return found | {
        run_id
        for at, *entry in entries
        for run_id, task_id, given in _marks(*entry)
        if at and run_id in ids and given == state
        if (start := starts.get((run_id, task_id))) is None or at >= start
    }


def failure_of(run: Any) -> Failure | None:
    """The first failed task of a run; None if no task failed, for example after a timeout of the run."""
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
        errors = XComModel.get_many(
            run_id=run.run_id, key=failures.KEY, dag_ids=run.dag_id, task_ids=task_id, map_indexes=map_index
        )
        stored = session.scalars(errors).first()
        error = None if stored is None else XComModel.deserialize_value(stored)
    return Failure(task_id, sum(other == task_id for other, _ in failed), **(error or {}))


def _marks(run_id: str | None, task_id: str | None, extra: str | None) -> Iterator[tuple[str, str | None, str]]:
    """The marks in an entry of the audit log: run, task if a task was marked, new state."""
    body = json.loads(extra or "{}")
    marks: list[Any] = [{"dag_run_id": run_id, "task_id": task_id, **body}]
    marks += [entity for action in body.get("actions", []) for entity in action.get("entities", [])]
    for mark in marks:
        # An entity to delete is a plain id.
        if isinstance(mark, dict) and (state := mark.get("new_state") or mark.get("state")) and mark.get("dag_run_id"):
            yield mark["dag_run_id"], mark.get("task_id"), state.lower()


@contextmanager
def _session() -> Iterator[Session]:
    try:
        with create_session(scoped=False) as session:
            # Callers read the rows after the session ends.
            session.expire_on_commit = False
            yield session
    except SQLAlchemyError as error:
        # The text of the error names the database.
        raise AggregatorError(
            f"Airflow's database did not respond ({type(error).__name__}). Alerts about runs were not checked. The "
            "next check is in a few seconds. If this repeats, check AIRFLOW__DATABASE__SQL_ALCHEMY_CONN."
        ) from None
