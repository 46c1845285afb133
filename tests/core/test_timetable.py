"""The window of a logical date, through Airflow's own code paths."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pendulum
import pytest
import time_machine
from airflow.api_fastapi.core_api.datamodels.dag_run import TriggerDAGRunPostBody
from airflow.exceptions import AirflowTimetableInvalid
from airflow.models.backfill import _get_info_list
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.sdk import DAG
from airflow.serialization.encoders import coerce_to_core_timetable
from airflow.serialization.serialized_objects import DagSerialization, LazyDeserializedDAG
from airflow.timetables.base import DataInterval, TimeRestriction
from airflow.utils.types import DagRunType
from hypothesis import given
from hypothesis import strategies as st

from aggregator.core.timetable import OffsetCronTimetable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.serialization.definitions.dag import SerializedDAG
    from pendulum import DateTime

FIVE_MINUTES = ("*/5 * * * *", timedelta(minutes=1))
HOURLY = ("0 * * * *", timedelta())
DAILY = ("0 0 * * *", timedelta(hours=1))
MONTHLY = ("0 0 1 * *", timedelta(hours=3))
SCHEDULES = [FIVE_MINUTES, HOURLY, DAILY, MONTHLY]
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=[cron for cron, _ in SCHEDULES])

schedules = st.sampled_from(SCHEDULES)
timestamps = st.datetimes(datetime(2023, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


def at(text: str) -> DateTime:
    timestamp = pendulum.parse(text)
    assert isinstance(timestamp, pendulum.DateTime)
    return timestamp


def interval(start: str, end: str) -> DataInterval:
    return DataInterval(at(start), at(end))


def timetable(schedule: tuple[str, timedelta] = DAILY) -> OffsetCronTimetable:
    cron, offset = schedule
    return OffsetCronTimetable(cron, offset=offset)


def dag(schedule: tuple[str, timedelta] = DAILY, **arguments: Any) -> SerializedDAG:
    """The DAG as the scheduler loads it: serialized and deserialized."""
    arguments = {"catchup": True, "default_args": {"start_date": None}, **arguments}
    declared = DAG("job", schedule=arguments.pop("timetable", timetable(schedule)), **arguments)
    return DagSerialization.from_dict(DagSerialization.to_dict(declared))


def scheduled(dag: SerializedDAG, count: int = 1, after: DagRun | None = None) -> list[DagRun]:
    """The next scheduled runs, computed by the code of the DAG processor and the scheduler."""
    model, runs = DagModel(dag_id=dag.dag_id), []  # type: ignore[no-untyped-call]  # Airflow's
    for _ in range(count):
        model.calculate_dagrun_date_fields(dag, reference_run=after)
        info = dag.timetable.next_run_info_from_dag_model(dag_model=model)
        if info is None or info.run_after > pendulum.now("UTC"):
            break
        after = run("scheduled", info.logical_date, info.data_interval, info.run_after)
        runs.append(after)
    return runs


def run(kind: str, logical_date: datetime | None, data_interval: DataInterval | None, run_after: datetime) -> DagRun:
    return DagRun(
        dag_id="job",
        run_id=f"{kind}__{run_after.isoformat()}",
        run_type=DagRunType(kind),
        logical_date=logical_date,
        data_interval=data_interval,
        run_after=run_after,
    )


def window(run: DagRun) -> tuple[datetime | None, datetime | None]:
    return run.data_interval_start, run.data_interval_end


@pytest.fixture(params=["UTC", "Europe/Berlin"])
def _zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The time zone of the process."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


# The window of a date


@pytest.mark.parametrize(
    ("schedule", "date", "window"),
    [
        (DAILY, "2026-11-15", interval("2026-11-15", "2026-11-16")),
        (DAILY, "2024-02-28", interval("2024-02-28", "2024-02-29")),
        (DAILY, "2024-02-29", interval("2024-02-29", "2024-03-01")),
        (DAILY, "2025-02-28", interval("2025-02-28", "2025-03-01")),
        (DAILY, "2025-12-31", interval("2025-12-31", "2026-01-01")),
        (MONTHLY, "2024-02-01", interval("2024-02-01", "2024-03-01")),
        (MONTHLY, "2025-12-01", interval("2025-12-01", "2026-01-01")),
        (HOURLY, "2025-12-31T23:00", interval("2025-12-31T23:00", "2026-01-01T00:00")),
        (FIVE_MINUTES, "2024-02-29T23:55", interval("2024-02-29T23:55", "2024-03-01T00:00")),
        # The night of the clock change in Europe.
        (DAILY, "2026-03-29", interval("2026-03-29", "2026-03-30")),
        (DAILY, "2026-10-25", interval("2026-10-25", "2026-10-26")),
        (HOURLY, "2026-10-25T01:00", interval("2026-10-25T01:00", "2026-10-25T02:00")),
    ],
)
@pytest.mark.usefixtures("_zone")
def test_date_on_a_boundary_has_the_interval_that_starts_there(
    schedule: tuple[str, timedelta], date: str, window: DataInterval
) -> None:
    with time_machine.travel(at("2026-11-20T10:02:03").timestamp(), tick=False):
        assert dag(schedule).timetable.infer_manual_data_interval(run_after=at(date)) == window


@time_machine.travel(at("2026-11-16T00:30:00"), tick=False)
def test_finished_interval_is_allowed_before_its_offset_has_passed() -> None:
    assert timetable().infer_manual_data_interval(run_after=at("2026-11-15")) == interval("2026-11-15", "2026-11-16")


@pytest.mark.parametrize("date", ["2026-11-16", "2026-11-17", "2027-01-01"])
def test_start_of_an_unfinished_interval_is_rejected(date: str) -> None:
    # The run would take the logical date of a scheduled run, whose interval would never be processed.
    with (
        time_machine.travel(at("2026-11-16T23:59:59"), tick=False),
        pytest.raises(ValueError, match=f"Logical date {date} starts .* not over. Use 2026-11-15 .UTC."),
    ):
        timetable().infer_manual_data_interval(run_after=at(date))


@pytest.mark.parametrize(
    ("schedule", "now", "timestamp", "window"),
    [
        (DAILY, "2026-11-16T00:59:59", "2026-11-16T00:59:59", interval("2026-11-14", "2026-11-15")),
        # The form was opened before the run was due, and submitted after it.
        (DAILY, "2026-11-16T01:00:01", "2026-11-16T00:58:00", interval("2026-11-15", "2026-11-16")),
        (DAILY, "2026-11-16T01:30:00", "2026-11-16T00:30:00", interval("2026-11-15", "2026-11-16")),
        (DAILY, "2026-11-16T00:20:00", "2026-11-15T23:40:00", interval("2026-11-14", "2026-11-15")),
        # The browser's clock is ahead.
        (DAILY, "2026-11-20T10:00:00", "2026-11-20T10:00:59", interval("2026-11-19", "2026-11-20")),
        (MONTHLY, "2026-11-20T10:00:00", "2026-11-20T09:59:00", interval("2026-10-01", "2026-11-01")),
        (FIVE_MINUTES, "2026-11-20T10:02:00", "2026-11-20T09:31:07", interval("2026-11-20T09:55", "2026-11-20T10:00")),
    ],
)
def test_time_of_the_last_hour_has_the_latest_interval_past_its_offset(
    schedule: tuple[str, timedelta], now: str, timestamp: str, window: DataInterval
) -> None:
    with time_machine.travel(at(now), tick=False):
        assert timetable(schedule).infer_manual_data_interval(run_after=at(timestamp)) == window


@pytest.mark.parametrize(
    ("schedule", "date", "dates"),
    [
        (DAILY, "2026-11-20T10:30", "2026-11-20 or 2026-11-21"),
        (DAILY, "2026-11-15T00:00:00.000001", "2026-11-15 or 2026-11-16"),
        (DAILY, "2026-11-23T01:00", "2026-11-23 or 2026-11-24"),
        (DAILY, "2026-11-24T20:59:59", "2026-11-24"),
        (DAILY, "2026-11-25T08:00:00", "2026-11-24"),
        (DAILY, "2026-11-25T10:02:00", "2026-11-24"),
        (DAILY, "2027-02-03T04:05:06", "2026-11-24"),
        (MONTHLY, "2026-11-15", "2026-10-01"),
        (MONTHLY, "2026-09-15", "2026-09-01 or 2026-10-01"),
        (MONTHLY, "2026-10-15", "2026-10-01"),
        (HOURLY, "2026-11-20T10:30", "2026-11-20T10:00 or 2026-11-20T11:00"),
        (FIVE_MINUTES, "2026-11-20T10:31:30", "2026-11-20T10:30 or 2026-11-20T10:35"),
    ],
)
def test_other_time_is_rejected_with_the_valid_dates(schedule: tuple[str, timedelta], date: str, dates: str) -> None:
    job = dag(schedule).timetable
    with time_machine.travel(at("2026-11-25T10:00:00"), tick=False):
        with pytest.raises(ValueError, match="does not start a data interval") as refused:
            job.infer_manual_data_interval(run_after=at(date))
        assert str(refused.value).startswith(f"Logical date {date[:10]}")
        assert f"Use {dates} (UTC), or leave the date empty" in str(refused.value)
        for each in dates.split(" or "):
            assert job.infer_manual_data_interval(run_after=at(each)).start == at(each)


@pytest.mark.parametrize(
    "date",
    [
        datetime(2026, 11, 15),  # noqa: DTZ001
        pendulum.naive(2026, 11, 15),
        datetime(2026, 11, 15, 1, tzinfo=timezone(timedelta(hours=1))),
        pendulum.datetime(2026, 11, 14, 19, tz="America/New_York"),
    ],
)
@pytest.mark.usefixtures("_zone")
@time_machine.travel(at("2026-11-20T10:00:00").timestamp(), tick=False)
def test_dates_without_a_zone_and_in_other_zones_are_converted_to_utc(date: Any) -> None:
    assert timetable().infer_manual_data_interval(run_after=date) == interval("2026-11-15", "2026-11-16")


# The schedule


@every_schedule
def test_first_run_has_the_latest_due_interval(schedule: tuple[str, timedelta]) -> None:
    with time_machine.travel(at("2026-11-16T10:02:03"), tick=False):
        (first,) = scheduled(dag(schedule), count=5)

        assert window(first) == timetable(schedule).latest_interval(pendulum.now("UTC"))
        assert first.data_interval_end is not None
        assert first.run_after == first.data_interval_end + schedule[1]


def test_every_missed_interval_runs_after_downtime() -> None:
    with time_machine.travel(at("2026-02-26T01:00:00"), tick=False):
        (last,) = scheduled(dag())
    with time_machine.travel(at("2026-03-02T12:00:00"), tick=False):
        missed = scheduled(dag(), count=10, after=last)

    assert [run.logical_date for run in missed] == [at(f"2026-{day}") for day in ("02-26", "02-27", "02-28", "03-01")]


@time_machine.travel(at("2026-11-05T12:00:00"), tick=False)
def test_new_dag_starts_at_its_start_date() -> None:
    job = dag(default_args={"start_date": at("2026-11-01T06:00:00")})

    assert [run.logical_date for run in scheduled(job, count=10)] == [at(f"2026-11-0{day}") for day in (2, 3, 4)]


@time_machine.travel(at("2026-11-05T12:00:00"), tick=False)
def test_start_of_the_timetable_limits_the_schedule_and_not_backfills() -> None:
    job = dag(timetable=OffsetCronTimetable("0 0 * * *", offset=timedelta(hours=1), start=at("2026-11-01T06:00:00")))

    assert [run.logical_date for run in scheduled(job, count=10)] == [at(f"2026-11-0{day}") for day in (2, 3, 4)]
    backfilled = job.iter_dagrun_infos_between(at("2026-10-30"), at("2026-10-31"))
    assert [info.logical_date for info in backfilled] == [at("2026-10-30"), at("2026-10-31")]
    assert job.start_date is None, "Airflow would not run the tasks of a run before it"


@pytest.mark.parametrize("catchup", [True, False])
@time_machine.travel(at("2026-11-05T12:00:00"), tick=False)
def test_schedule_waits_for_a_start_date_in_the_future(catchup: bool) -> None:
    assert scheduled(dag(start_date=at("2026-12-01"), catchup=catchup)) == []


@pytest.mark.parametrize(("now", "latest"), [("2026-11-16T00:59:59", "2026-11-14"), ("2026-11-16T01:00", "2026-11-15")])
@pytest.mark.parametrize("start", [None, at("2026-11-01")])
def test_missed_intervals_are_left_out_without_catchup(now: str, latest: str, start: DateTime | None) -> None:
    with time_machine.travel(at(now), tick=False):
        job = dag(catchup=False, start_date=start)
        last = run("scheduled", at("2026-11-03"), interval("2026-11-03", "2026-11-04"), at("2026-11-04T01:00"))

        assert [run.logical_date for run in scheduled(job, count=10, after=last)] == [at(latest)]
        assert [run.logical_date for run in scheduled(job, count=10)] == [at(latest)]


@time_machine.travel(at("2026-11-20"), tick=False)
def test_schedule_ends_at_the_end_date() -> None:
    job = dag(start_date=at("2026-11-01"), end_date=at("2026-11-02"))

    assert [run.logical_date for run in scheduled(job, count=10)] == [at("2026-11-01"), at("2026-11-02")]


@time_machine.travel(at("2026-11-20"), tick=False)
def test_changed_schedule_continues_after_the_last_interval() -> None:
    last = run("scheduled", at("2026-11-18"), interval("2026-11-18", "2026-11-19"), at("2026-11-19T01:00"))

    (following, *_) = scheduled(dag(HOURLY), after=last)

    assert window(following) == interval("2026-11-19T00:00", "2026-11-19T01:00")


@time_machine.travel(at("2026-11-20"), tick=False)
def test_manual_run_with_the_date_of_a_scheduled_run_does_not_stop_the_schedule() -> None:
    # `airflow dags trigger --logical-date 2026-11-15` shortly before its run was due.
    early = run("manual", at("2026-11-15"), interval("2026-11-14", "2026-11-15"), at("2026-11-16T00:30"))

    (following, *_) = scheduled(dag(), after=early)

    assert following.logical_date == at("2026-11-16")


# Properties


@pytest.mark.slow
@given(schedules, timestamps)
def test_intervals_follow_each_other_without_gaps(schedule: tuple[str, timedelta], start: datetime) -> None:
    job, restriction = timetable(schedule), TimeRestriction(pendulum.instance(start), None, catchup=True)
    intervals, last = [], None
    for _ in range(5):
        info = job.next_dagrun_info(last_automated_data_interval=last, restriction=restriction)
        assert info is not None
        last = info.data_interval
        assert last is not None
        assert info.run_after - last.end == schedule[1]
        intervals.append(last)

    assert intervals[0].start >= start
    assert all(before.end == after.start for before, after in pairwise(intervals))


@given(schedules, timestamps)
def test_start_of_an_interval_gives_that_interval(schedule: tuple[str, timedelta], timestamp: datetime) -> None:
    job = timetable(schedule)
    latest = job.latest_interval(timestamp)
    following = job.interval_from(latest.end)

    assert following is not None
    assert latest.end + schedule[1] <= timestamp < following.end + schedule[1]
    assert job.interval_from(latest.start) == latest
    with time_machine.travel(timestamp, tick=False):
        assert job.infer_manual_data_interval(run_after=latest.start) == latest


@given(schedules, timestamps, st.timedeltas(timedelta(minutes=1), timedelta(days=400)))
def test_date_gives_its_interval_the_latest_one_or_an_error(
    schedule: tuple[str, timedelta], timestamp: datetime, later: timedelta
) -> None:
    job, now = timetable(schedule), pendulum.instance(timestamp + later)
    starts = job.interval_from(timestamp)
    with time_machine.travel(now, tick=False):
        try:
            window = job.infer_manual_data_interval(run_after=pendulum.instance(timestamp))
        except ValueError:
            assert starts.end > now if starts else later > timedelta(hours=1)
        else:
            assert window == (starts or job.latest_interval(now))
            assert window.end <= now


@pytest.mark.slow
@given(schedules, timestamps.filter(lambda timestamp: timestamp.microsecond > 0))  # "now" is never a boundary
def test_all_kinds_of_runs_have_the_same_window_for_a_date(
    schedule: tuple[str, timedelta], timestamp: datetime
) -> None:
    job = dag(schedule)
    expected = timetable(schedule).latest_interval(timestamp)
    date = expected.start
    previous = DataInterval(timetable(schedule).latest_interval(date + schedule[1]).start, date)
    with time_machine.travel(timestamp, tick=False):
        (by_scheduler,) = scheduled(job, after=run("scheduled", previous.start, previous, date + schedule[1]))
        (by_backfill,) = _get_info_list(dag=job, from_date=date, to_date=date, reverse=False)
        by_dags_test = coerce_to_core_timetable(timetable(schedule)).infer_manual_data_interval(run_after=date)
        by_form = TriggerDAGRunPostBody(logical_date=date).validate_context(job)["data_interval"]
        by_form_now = TriggerDAGRunPostBody(logical_date=timestamp).validate_context(job)["data_interval"]

    assert (by_scheduler.logical_date, window(by_scheduler)) == (date, expected)
    assert (by_backfill.logical_date, by_backfill.data_interval) == (date, expected)
    assert by_dags_test == by_form == by_form_now == expected


# In the UI and in the metadata database


@pytest.mark.parametrize(
    ("schedule", "summary"),
    [
        (FIVE_MINUTES, "Every 5 minutes, 1 minute after the interval's end"),
        (HOURLY, "Hourly at :00, for the hour before"),
        (DAILY, "Daily at 01:00 UTC, for the UTC day before"),
        (MONTHLY, "Monthly on day 1 at 03:00 UTC, for the UTC month before"),
        (("@daily", timedelta(0)), "Daily at 00:00 UTC, for the UTC day before"),
        (("0 0 * * *", timedelta(hours=30)), "At 00:00, 1 day 6 hours after the interval's end"),
        (("*/15 * * * *", timedelta(0)), "Every 15 minutes, at the interval's end"),
    ],
)
def test_summary(schedule: tuple[str, timedelta], summary: str) -> None:
    assert LazyDeserializedDAG.from_dag(DAG("job", schedule=timetable(schedule))).timetable.summary == summary


def test_description_explains_the_window() -> None:
    assert timetable().description == (
        "The data interval follows cron 0 0 * * * in UTC; its start is the run's logical date. "
        "The run is due 1 hour after the interval's end."
    )
    assert timetable(HOURLY).description.endswith("The run is due at the interval's end.")


@every_schedule
def test_serialized_timetable_is_equal(schedule: tuple[str, timedelta]) -> None:
    restored = dag(schedule).timetable

    assert type(restored) is OffsetCronTimetable
    assert restored == timetable(schedule)
    assert hash(restored) == hash(timetable(schedule))
    assert restored != OffsetCronTimetable(schedule[0], offset=schedule[1] + timedelta(seconds=1))


@pytest.mark.parametrize(
    ("cron", "offset", "message"),
    [("0 0 * * *", timedelta(seconds=-1), "cannot be due before the end"), ("61 * * * *", timedelta(), "61")],
)
def test_invalid_schedule_is_rejected_when_its_dag_is_loaded(cron: str, offset: timedelta, message: str) -> None:
    job = DAG("job", schedule=OffsetCronTimetable(cron, offset=offset))

    with pytest.raises(AirflowTimetableInvalid, match=message):
        job.validate()  # type: ignore[no-untyped-call]  # Airflow's
