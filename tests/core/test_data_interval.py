"""Tasks of every kind of run process the window of the logical date."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pendulum
import pytest
import time_machine
from airflow.sdk import DAG
from airflow.timetables.base import DataInterval

from aggregator.core.data_interval import data_interval
from aggregator.core.errors import PermanentError
from aggregator.core.timetable import OffsetCronTimetable

if TYPE_CHECKING:
    from airflow.sdk import Context

DAY_14 = DataInterval(pendulum.datetime(2026, 11, 14), pendulum.datetime(2026, 11, 15))
DAY_15 = DataInterval(pendulum.datetime(2026, 11, 15), pendulum.datetime(2026, 11, 16))
NOON_16 = pendulum.datetime(2026, 11, 16, 12)


def context(
    logical_date: pendulum.DateTime | None,
    stored: DataInterval | None,
    run_after: pendulum.DateTime = NOON_16,
    schedule: Any = OffsetCronTimetable("0 0 * * *", offset=timedelta(hours=1)),  # noqa: B008 (immutable)
) -> Context:
    run = SimpleNamespace(
        dag_id="job",
        run_id="a_run",
        logical_date=logical_date,
        data_interval_start=stored and stored.start,
        data_interval_end=stored and stored.end,
        run_after=run_after,
    )
    return cast("Context", {"dag": DAG("job", schedule=schedule), "dag_run": run})


@pytest.mark.parametrize(
    ("logical_date", "stored", "run_after"),
    [
        (DAY_15.start, DAY_15, pendulum.datetime(2026, 11, 16, 1)),  # the scheduler, a backfill
        (DAY_15.start, DAY_15, NOON_16),  # `dags test`, the form
        (DAY_15.start, DAY_15, pendulum.datetime(2026, 11, 16)),  # `tasks test`: before the offset has passed
        (NOON_16, DAY_15, NOON_16),  # "now"
        (NOON_16.subtract(minutes=59), DAY_15, NOON_16),  # "now", of a form that was open for a while
        (DAY_15.start.add(hours=3), DataInterval(DAY_14.start, DAY_15.end), NOON_16),  # an interval of its own
        (DAY_15.start, DataInterval(DAY_14.start, DAY_15.end), NOON_16),
    ],
)
def test_run_with_an_interval_keeps_it(
    logical_date: pendulum.DateTime, stored: DataInterval, run_after: pendulum.DateTime
) -> None:
    assert data_interval(context(logical_date, stored, run_after)) == stored


@pytest.mark.parametrize(
    ("run_after", "window"),
    [
        (NOON_16, DAY_15),
        (pendulum.datetime(2026, 11, 16, 1), DAY_15),
        (pendulum.datetime(2026, 11, 16, 0, 59), DAY_14),
        (pendulum.datetime(2026, 11, 16), DAY_14),
    ],
)
@pytest.mark.parametrize("now", [NOON_16, NOON_16.add(months=2)])
def test_run_without_a_logical_date_has_the_interval_that_was_due(
    run_after: pendulum.DateTime, window: DataInterval, now: pendulum.DateTime
) -> None:
    with time_machine.travel(now, tick=False):
        assert data_interval(context(None, None, run_after)) == window


def test_date_given_to_dags_trigger_sets_the_window() -> None:
    assert data_interval(context(DAY_14.start, DAY_15)) == DAY_14


def test_date_given_to_dags_trigger_of_an_unfinished_interval_is_rejected() -> None:
    with pytest.raises(PermanentError, match=r"not over. Use 2026-11-15 .*Nothing was processed"):
        data_interval(context(DAY_15.end, DAY_15))


@pytest.mark.parametrize("date", [DAY_14.start.add(hours=10), NOON_16.add(days=3), NOON_16.subtract(hours=2)])
def test_date_given_to_dags_trigger_between_boundaries_is_rejected(date: pendulum.DateTime) -> None:
    with pytest.raises(PermanentError, match=r"does not start a data interval. Use 2026-11-1.*Nothing was processed"):
        data_interval(context(date, DAY_15))


def test_dag_without_the_timetable_is_rejected() -> None:
    with pytest.raises(PermanentError, match="DAG job has no OffsetCronTimetable"):
        data_interval(context(None, None, schedule=None))
