from __future__ import annotations

from collections import Counter
from datetime import date, timedelta

import pytest

from dev.sample import telemetry

DAY = date(2026, 11, 15)


@pytest.mark.parametrize("day", [DAY, date(2024, 2, 29), date(2026, 12, 31)])
def test_day_has_every_case_of_a_rollup(day: date) -> None:
    rows = list(telemetry.events(day))
    assert {row["created_at"].date() for row in rows} == {day}
    assert {row["event"] for row in rows} == set(telemetry.EVENTS)
    assert None in {row["user_id"] for row in rows}
    assert {None, 0} < {row["value"] for row in rows}
    assert {type(row["meta"]) for row in rows} == {dict, list, int, type(None)}
    assert len({row["meta"]["plan"] for row in rows if isinstance(row["meta"], dict) and "plan" in row["meta"]}) > 1
    assert max(Counter((row["event"], row["created_at"]) for row in rows).values()) > 1


def test_same_day_has_the_same_events() -> None:
    assert list(telemetry.events(DAY)) == list(telemetry.events(DAY))
    assert list(telemetry.events(DAY)) != list(telemetry.events(DAY + timedelta(days=1)))
