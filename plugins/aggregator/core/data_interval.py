"""The window that a task processes (spec: time)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pendulum
from airflow.timetables.base import DataInterval

from aggregator.core.errors import PermanentError, WrongParamsError
from aggregator.core.timetable import OffsetCronTimetable

if TYPE_CHECKING:
    from airflow.sdk import Context


def data_interval(context: Context) -> DataInterval:
    """The half-open UTC interval ``[start, end)`` that a run processes.

    It depends on the stored run and not on the current time, so a run that is cleared a month later has the same
    interval.

    Returns:
        The interval, which depends on how the run was created:

        - Usually the run's own data interval.
        - Without a logical date: the latest interval that was over and past its offset when the run was created.
        - By ``airflow dags trigger --logical-date`` or ``TriggerDagRunOperator``: the interval that starts at the
          logical date. Airflow stores the interval of the time of the call for such runs.

    Raises:
        PermanentError: The DAG's schedule is not an ``OffsetCronTimetable``.
        WrongParamsError: No interval starts at the run's logical date, or that interval was not over when the run was
            created.
    """
    run = context["dag_run"]
    timetable = context["dag"].timetable
    if not isinstance(timetable, OffsetCronTimetable):
        msg = f"DAG {run.dag_id} has no OffsetCronTimetable, so its runs have no window. Use one as the DAG's schedule."
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
        raise WrongParamsError(
            f"{timetable.why_refused(run.logical_date, run.run_after)} Nothing was processed. "
            f"Delete run {run.run_id} and start another one."
        )
    return named
