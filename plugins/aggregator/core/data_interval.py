"""The window of a run, read in its tasks (spec: time)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pendulum
from airflow.timetables.base import DataInterval

from aggregator.core.errors import PermanentError, WrongParamsError
from aggregator.core.timetable import OffsetCronTimetable

if TYPE_CHECKING:
    from airflow.sdk import Context


def data_interval(context: Context) -> DataInterval:
    """The half-open UTC interval ``[start, end)`` that a run has to process.

    It follows from what is stored with the run and never from the clock: a run cleared a month later gets the interval
    it had.

    Args:
        context: The task's context.

    Returns:
        The run's own data interval. For a run without a logical date, which has none, the latest interval that was over
        and past its offset when the run was created. For a run of ``airflow dags trigger --logical-date`` or
        ``TriggerDagRunOperator``, the interval that its logical date names: Airflow stored the one that the moment of
        the call gives.

    Raises:
        PermanentError: The DAG is not scheduled by ``OffsetCronTimetable``.
        WrongParamsError: The run's logical date starts no interval, or one that was not over when the run was created.
    """
    run = context["dag_run"]
    timetable = context["dag"].timetable
    if not isinstance(timetable, OffsetCronTimetable):
        msg = f"DAG {run.dag_id} has no OffsetCronTimetable, so its runs have no window; give it one as its schedule."
        raise PermanentError(msg)
    due = timetable.latest_interval(run.run_after)
    if run.data_interval_start is None or run.data_interval_end is None:
        return due
    stored = DataInterval(pendulum.instance(run.data_interval_start), pendulum.instance(run.data_interval_end))
    if run.logical_date is None or stored != due:
        return stored
    named = timetable.interval_from(run.logical_date)
    if named is None and timetable.is_now(run.logical_date, run.run_after):
        return stored
    if named is None or named.end > run.run_after:
        msg = (
            f"{timetable.why_refused(run.logical_date, run.run_after)} Nothing was processed. "
            f"Delete run {run.run_id} and start another one."
        )
        raise WrongParamsError(msg)
    return named
