"""Comparisons of the scale-out proof. `make scale-out` itself tests that workers write the same rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from aggregator.core.settings import ScheduleSettings
from dev.scale_out import NO_SCHEDULE, Outcome, differences, digests, report, shipped, whole_day
from dev.stack import Ports, Stack, StackError

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg
    from airflow.dag_processing.dagbag import DagBag

NO_DAILY_INTERVAL = {"analytics_monthly_usage", "kpi_dispatch"}
"""DAGs without an interval that ends with a UTC day."""

TABLES = """
create schema product;
create schema ops;
create table product.rows (
    id int generated always as identity, name text, count int, updated_at timestamptz default now()
);
create table ops.log (line text);
"""


@pytest.mark.parametrize("hour", range(24))
def test_every_run_of_the_day_is_due_at_any_hour(dag_bag: DagBag, hour: int) -> None:
    now = datetime(2026, 11, 23, hour, 1, tzinfo=UTC)
    timetables: dict[str, Any] = {
        id_: dag.timetable for id_, dag in dag_bag.dags.items() if id_ not in NO_DAILY_INTERVAL
    }
    not_due = [id_ for id_, each in timetables.items() if each.latest_interval(now).end.date() <= whole_day(now)]
    assert len(timetables) == 8
    assert not_due == []


def test_settings_without_a_schedule_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in NO_SCHEDULE.items():
        monkeypatch.setenv(name, value)
    start = ScheduleSettings.load().start_date
    assert start
    assert start > datetime.now(UTC) + timedelta(days=365)


def written(connection: psycopg.Connection, *rows: tuple[str, int]) -> dict[str, tuple[int, str]]:
    connection.execute("truncate product.rows")
    for row in rows:
        connection.execute("insert into product.rows (name, count) values (%s, %s)", row)
    return digests(connection)


def test_digests_ignore_timestamps_and_order(connection: psycopg.Connection) -> None:
    connection.execute(TABLES)
    one, other = written(connection, ("a", 1), ("b", 2)), written(connection, ("b", 2), ("a", 1))
    assert one == other
    assert {name: rows for name, (rows, _) in one.items()} == {"product.rows": 2}


@pytest.mark.parametrize("rows", [[("a", 1)], [("a", 1), ("b", 3)], [("a", 1), ("b", 2), ("b", 2)]])
def test_different_row_is_a_difference(connection: psycopg.Connection, rows: list[tuple[str, int]]) -> None:
    connection.execute(TABLES)
    assert differences(written(connection, ("a", 1), ("b", 2)), written(connection, *rows)) == ["product.rows"]


def test_table_that_only_one_stack_wrote_is_a_difference() -> None:
    assert differences({"a": 1, "b": 1}, {"b": 1, "c": 1}) == ["a", "c"]


def outcome(rows: int = 1, *, lost: tuple[str, ...] = ("click_rollups.roll_up_clicks",)) -> Outcome:
    return Outcome(10.0, 3, {"product.rows": (rows, "digest")}, list(lost), list(lost), 70.0)


@pytest.mark.parametrize(
    ("scaled", "code"),
    [
        (outcome(), 0),
        (outcome(2), 1),
        (outcome(lost=()), 1),  # the killed worker had no task, so nothing is proved
    ],
)
def test_exit_code_is_0_if_rows_are_equal_and_a_task_was_lost(scaled: Outcome, code: int) -> None:
    assert report(outcome(), scaled, Console(quiet=True)) == code


def test_proof_uses_the_values_of_the_compose_file() -> None:
    values = shipped()
    assert int(values["AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT"]) == 60
    assert all(map(str.isdecimal, values.values()))


def test_missing_redis_fails_before_anything_is_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    stack = Stack(tmp_path / "home", workers=1)
    with pytest.raises(StackError, match="Celery workers need redis-server"):
        stack.start(Ports.free(), durable=False, say=print)
    assert not stack.home.exists()
