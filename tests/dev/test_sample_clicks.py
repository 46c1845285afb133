from __future__ import annotations

import subprocess
import sys
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from dev.sample import clicks
from dev.sample.load import DAYS

if TYPE_CHECKING:
    from pathlib import Path

    from airflow.dag_processing.dagbag import DagBag

DAY = date(2026, 11, 15)


@pytest.mark.parametrize("day", [DAY, date(2024, 2, 29), date(2026, 12, 31), date(2026, 3, 29)])
def test_day_has_every_case_of_a_rollup(day: date) -> None:
    rows = list(clicks.events(day))
    hires = {row["id"] for row in clicks.hires()}
    assert 2_500 < len(rows) < 5_000
    assert {row["timestamp"][:10] for row in rows} == {day.isoformat()}
    times = {row["timestamp"][11:] for row in rows}
    assert {"00:00:00", "23:59:59"} <= times
    assert {row["blob4"] for row in rows} == hires | set(clicks.UNKNOWN_HIRES) | {""}
    assert {row["blob7"] for row in rows} == {"valid", "tier_a", "tier_b"}
    assert all(row["double1"] == 1 and row["double2"] == (row["blob7"] != "valid") for row in rows)
    assert {row["_sample_interval"] for row in rows} == {1, 2, 5, 10}
    assert max(Counter(tuple(row.items()) for row in rows).values()) == 2
    by_hour = Counter(row["timestamp"][11:13] for row in rows)
    assert by_hour["19"] > 4 * by_hour["03"]


def test_forty_hires_include_unusual_ids() -> None:
    ids = [row["id"] for row in clicks.hires()]
    assert len(set(ids)) == len(ids) == 40
    assert any("'" in name and '"' in name for name in ids)
    assert any(not name.isascii() for name in ids)
    assert not set(clicks.UNKNOWN_HIRES) & set(ids)


def test_same_day_has_the_same_events() -> None:
    assert list(clicks.events(DAY)) == list(clicks.events(DAY))
    assert list(clicks.events(DAY)) != list(clicks.events(DAY + timedelta(days=1)))


@pytest.mark.parametrize("hour", range(24))
def test_a_week_before_the_newest_run_can_be_backfilled(dag_bag: DagBag, hour: int) -> None:
    now = datetime(2026, 11, 23, hour, 30, tzinfo=UTC)
    dag: Any = dag_bag.dags["click_rollups"]
    newest = dag.timetable.latest_interval(now).start.date()
    assert newest - timedelta(days=7) >= now.date() - timedelta(days=DAYS)


def test_another_process_generates_the_same_events(repository: Path) -> None:
    code = "import datetime; from dev.sample import clicks; print(list(clicks.events(datetime.date(2026, 11, 15))))"
    printed = subprocess.run(
        [sys.executable, "-c", code],
        cwd=repository,
        env={"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout.strip() == str(list(clicks.events(DAY)))
