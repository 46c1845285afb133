"""What the scale-out proof compares. That workers write the same is for `make scale-out` itself to show."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from dev.scale_out import Outcome, differences, digests, report, shipped, whole_day
from dev.stack import Ports, Stack, StackError

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag

OTHERWISE = {"analytics_monthly_usage", "kpi_dispatch"}
"""DAGs without an interval that ends with the day."""

TABLES = """
create schema product;
create schema ops;
create table product.rows (
    id int generated always as identity, name text, count int, updated_at timestamptz default now()
);
create table ops.log (line text);
"""


@pytest.mark.parametrize("hour", range(24))
def test_at_every_hour_each_run_of_the_day_is_due(dag_bag: DagBag, hour: int) -> None:
    now = datetime(2026, 11, 23, hour, 1, tzinfo=UTC)
    timetables = {id_: dag.timetable for id_, dag in dag_bag.dags.items() if id_ not in OTHERWISE}
    not_due = [id_ for id_, each in timetables.items() if each.latest_interval(now).end.date() <= whole_day(now)]
    assert len(timetables) == 8
    assert not_due == []


def written(connection, *rows: tuple[str, int]) -> dict[str, tuple[int, str]]:
    connection.execute("truncate product.rows")
    for row in rows:
        connection.execute("insert into product.rows (name, count) values (%s, %s)", row)
    return digests(connection)


def test_digests_are_of_values_and_not_of_moments_or_order(connection) -> None:
    connection.execute(TABLES)
    one, other = written(connection, ("a", 1), ("b", 2)), written(connection, ("b", 2), ("a", 1))
    assert one == other
    assert {name: rows for name, (rows, _) in one.items()} == {"product.rows": 2}


@pytest.mark.parametrize("rows", [[("a", 1)], [("a", 1), ("b", 3)], [("a", 1), ("b", 2), ("b", 2)]])
def test_a_row_that_differs_is_a_difference(connection, rows) -> None:
    connection.execute(TABLES)
    assert differences(written(connection, ("a", 1), ("b", 2)), written(connection, *rows)) == ["product.rows"]


def test_a_table_that_only_one_wrote_is_a_difference() -> None:
    assert differences({"a": 1, "b": 1}, {"b": 1, "c": 1}) == ["a", "c"]


def outcome(rows: int = 1, *, lost: tuple[str, ...] = ("click_rollups.roll_up_clicks",)) -> Outcome:
    return Outcome(10.0, 3, {"product.rows": (rows, "digest")}, list(lost), list(lost), 70.0)


@pytest.mark.parametrize(
    ("scaled", "code"),
    [
        (outcome(), 0),
        (outcome(2), 1),
        (outcome(lost=()), 1),  # nobody was killed while at work: nothing is proved
    ],
)
def test_exit_code_says_whether_it_is_proved(scaled: Outcome, code: int) -> None:
    assert report(outcome(), scaled, Console(quiet=True)) == code


def test_proof_is_for_the_values_of_the_compose_file() -> None:
    values = shipped()
    assert int(values["AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT"]) == 60
    assert all(map(str.isdecimal, values.values()))


def test_missing_redis_is_said_before_anything_is_started(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    stack = Stack(tmp_path / "home", workers=1)
    with pytest.raises(StackError, match="redis-server, which is not there"):
        stack.start(Ports.free(), durable=False, say=print)
    assert not stack.home.exists()
