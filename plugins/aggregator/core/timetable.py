"""The timetable of all DAGs with a data interval (spec: time; decisions: ``docs/adr/0002-time.md``)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Self

import pendulum
from airflow.exceptions import AirflowTimetableInvalid
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction
from airflow.timetables.interval import CronDataIntervalTimetable

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun
    from pendulum import DateTime

_SUMMARIES: Final = {
    "0 * * * *": "Hourly at :{0:%M}, for the hour before",
    "0 0 * * *": "Daily at {0:%H:%M} UTC, for the UTC day before",
    "0 0 1 * *": "Monthly on day {0.day} at {0:%H:%M} UTC, for the UTC month before",
}
_SAMPLE_BOUNDARY: Final = pendulum.datetime(2024, 1, 1)
"""A boundary of every cron expression in ``_SUMMARIES``."""

_FORM_OPEN: Final = timedelta(hours=1)
"""Longest time between opening and submitting the trigger form."""

_CLOCK_DIFFERENCE: Final = timedelta(minutes=1)
"""Largest time by which a browser's clock may be ahead."""


class OffsetCronTimetable(CronDataIntervalTimetable):
    """Data intervals from a cron expression in UTC; a run is due ``offset`` after the end of its interval.

    The logical date of a run is the start of its interval, also for manual runs. A DAG with ``catchup=True`` starts
    with the latest interval, or with ``start``, and then runs every interval. Its ``default_args`` must contain
    ``{"start_date": None}``, because Airflow rejects ``catchup=True`` without a start date.
    """

    def __init__(
        self, cron: str, *, offset: timedelta, start: datetime | None = None, start_error: str | None = None
    ) -> None:
        """Create the schedule; Airflow calls ``validate`` later.

        Args:
            cron: Boundaries of the intervals, in UTC: five fields, or a preset such as ``@daily``.
            offset: Time from the end of an interval to its run; not negative.
            start: Start of the first interval that the scheduler runs. Backfills and manual runs can be earlier.
            start_error: Why the start is not known. The scheduler then creates no first run, so that no interval is
                left out. A DAG that has runs continues.
        """
        super().__init__(cron, "UTC")
        self._offset = offset
        self._start = None if start is None else _utc(start)
        self._start_error = start_error
        self._cron_in_words = self.description
        later = pendulum.duration(seconds=offset.total_seconds()).in_words(locale="en")
        self._due_in_words = f"{later} after the interval's end" if offset else "at the interval's end"
        self.description = (
            f"The data interval follows cron {self._expression} in UTC; its start is the run's logical date. "
            f"The run is due {self._due_in_words}."
        )
        if start_error:
            self.description += f" {start_error} A DAG that has never run does not start until then."

    @property
    def offset(self) -> timedelta:
        """Time from the end of an interval to its run."""
        return self._offset

    @property
    def summary(self) -> str:
        """The schedule in the UI's list of DAGs; ``description`` is the tooltip."""
        due = _SAMPLE_BOUNDARY + self._offset
        if self._expression in _SUMMARIES and due < self._get_next(_SAMPLE_BOUNDARY):
            summary = _SUMMARIES[self._expression].format(due)
        else:
            summary = f"{self._cron_in_words}, {self._due_in_words}"
        return f"{summary} (start date unknown: see the tooltip)" if self._start_error else summary

    def __eq__(self, other: object) -> bool:
        """Whether all arguments are equal."""
        if not isinstance(other, OffsetCronTimetable):
            return NotImplemented
        return self.serialize() == other.serialize()

    def __hash__(self) -> int:
        """Hash of the cron expression and the offset."""
        return hash((self._expression, self._offset))

    def validate(self) -> None:
        """Check the schedule when its DAG is loaded.

        Raises:
            AirflowTimetableInvalid: The cron expression is invalid, or the offset is negative.
        """
        super().validate()
        if self._offset < timedelta():
            msg = f"offset is {self._offset}: a run cannot be due before the end of its interval. Use 0 or more."
            raise AirflowTimetableInvalid(msg)

    def serialize(self) -> dict[str, Any]:
        """The arguments of this timetable for the serialized DAG; the offset in seconds."""
        start = self._start and self._start.isoformat()
        arguments = {"expression": self._expression, "offset": self._offset.total_seconds(), "start": start}
        return {**arguments, "start_error": self._start_error} if self._start_error else arguments

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> Self:
        """The timetable whose arguments ``serialize`` returned."""
        start = data["start"] and datetime.fromisoformat(data["start"])
        offset = timedelta(seconds=data["offset"])
        return cls(data["expression"], offset=offset, start=start, start_error=data.get("start_error"))

    def interval_from(self, logical_date: datetime) -> DataInterval | None:
        """The interval that starts at a logical date, also if it is not over; None between two boundaries."""
        start = _utc(logical_date)
        return DataInterval(start, self._get_next(start)) if self._align_to_prev(start) == start else None

    def latest_interval(self, at: datetime) -> DataInterval:
        """The latest interval that is over and past its offset at a given time."""
        end = self._align_to_prev(_utc(at) - self._offset)
        return DataInterval(self._get_prev(end), end)

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """The next run; Airflow's scheduler and backfills call this.

        Returns:
            The next run, due ``offset`` after the end of its interval; None after the end date, or while the start date
            is not known.
        """
        if restriction.earliest is None:  # a backfill has its own start
            if last_automated_data_interval is None and self._start_error:
                return None
            restriction = restriction._replace(earliest=self._start)
        if last_automated_data_interval is None and restriction.earliest is None:
            # With catchup but no start date, Airflow creates no run. Without catchup, it runs the latest interval.
            restriction = restriction._replace(catchup=False)
        info = super().next_dagrun_info(
            last_automated_data_interval=last_automated_data_interval, restriction=restriction
        )
        return info and info._replace(run_after=info.run_after + self._offset)

    def _skip_to_latest(self, earliest: DateTime | None) -> DateTime:
        latest = self.latest_interval(pendulum.now("UTC")).start
        return latest if earliest is None else max(latest, self._align_to_next(earliest))

    def infer_manual_data_interval(self, *, run_after: DateTime) -> DataInterval:
        """The interval of a manual run.

        The trigger form, the REST API and ``airflow dags test`` pass the logical date. ``airflow dags trigger`` and
        ``TriggerDagRunOperator`` pass the time of the call; ``aggregator.core.data_interval`` corrects their interval.

        Returns:
            On a boundary, the interval that starts there, also before its offset has passed. For a timestamp that means
            "now" (:meth:`is_now`), the latest interval that is over and past its offset.

        Raises:
            ValueError: No interval starts at the timestamp, or the interval is not over. With an earlier interval, the
                run would not process the date that the user entered, or it would replace a scheduled run whose interval
                would then be left out. Airflow's API returns 400 with this text.
        """
        now = pendulum.now("UTC")
        interval = self.interval_from(run_after)
        if interval is None and self.is_now(run_after, now):
            return self.latest_interval(now)
        if interval is None or interval.end > now:
            raise ValueError(f"{self.why_refused(run_after, now)} No run was created.")
        return interval

    def is_now(self, logical_date: datetime, now: datetime) -> bool:
        """Whether the logical date of a manual run means "now".

        The trigger form submits the time at which it was opened, from the browser's clock.
        """
        return -_FORM_OPEN <= _utc(logical_date) - _utc(now) <= _CLOCK_DIFFERENCE

    def why_refused(self, logical_date: datetime, now: datetime) -> str:
        """Why a manual run cannot have a logical date, and which dates it can have."""
        start = self._align_to_prev(_utc(logical_date))
        interval = self.interval_from(logical_date)
        problem = (
            f"starts the data interval up to {_short(interval.end)}, which is not over."
            if interval
            else "does not start a data interval."
        )
        latest = self._get_prev(self._align_to_prev(_utc(now)))
        dates = dict.fromkeys(_short(min(date, latest)) for date in (start, self._get_next(start)))
        return (
            f"Logical date {_short(_utc(logical_date))} {problem} Use {' or '.join(dates)} (UTC), or leave the "
            "date empty for the latest interval."
        )

    def run_info_from_dag_run(self, *, dag_run: DagRun) -> DagRunInfo:
        """The interval of an existing run, after which the schedule continues.

        Returns:
            The run's own interval. For a run without one, the latest that was over and past its offset when the run was
            created. If the interval is before the logical date (``airflow dags trigger --logical-date`` creates such
            runs), the interval that starts at the logical date: otherwise the scheduler would return to the same
            logical date indefinitely.
        """
        if dag_run.data_interval_start is None or dag_run.data_interval_end is None:
            run_after = _utc(dag_run.run_after)
            return DagRunInfo(run_after, self.latest_interval(run_after), partition_date=None, partition_key=None)
        info = super().run_info_from_dag_run(dag_run=dag_run)
        if dag_run.logical_date and info.data_interval and info.data_interval.start < dag_run.logical_date:
            return info._replace(data_interval=self.interval_from(dag_run.logical_date) or info.data_interval)
        return info


def _utc(timestamp: datetime) -> DateTime:
    return pendulum.instance(timestamp, tz="UTC").in_timezone("UTC")


def _short(timestamp: DateTime) -> str:
    """A timestamp in UTC, without trailing zero parts of its time of day."""
    text = timestamp.format("YYYY-MM-DD[T]HH:mm:ss.SSSSSS").removesuffix(".000000")
    return text.removesuffix("T00:00:00").removesuffix(":00") if "." not in text else text
