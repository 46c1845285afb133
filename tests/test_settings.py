"""Settings: typed, checked, and named when they are wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from aggregator import settings
from aggregator.defaults import DEADLINES, deadline_of
from aggregator.errors import HardError


def test_start_date_is_the_beginning_of_a_utc_day(monkeypatch) -> None:
    monkeypatch.setenv("AGGREGATOR_START_DATE", "2026-02-28")
    assert settings.load().start_date == datetime(2026, 2, 28, tzinfo=UTC)


@pytest.mark.parametrize("value", [None, ""])
def test_start_date_may_be_left_out(monkeypatch, value: str | None) -> None:
    monkeypatch.delenv("AGGREGATOR_START_DATE", raising=False)
    if value is not None:
        monkeypatch.setenv("AGGREGATOR_START_DATE", value)
    assert settings.load().start_date is None


@pytest.mark.parametrize("value", ["yesterday", "2026-02-30", "2026-02-28T10:00:00"])
def test_error_names_the_variable_and_not_its_value(monkeypatch, value: str) -> None:
    monkeypatch.setenv("AGGREGATOR_START_DATE", value)
    with pytest.raises(HardError, match="AGGREGATOR_START_DATE: ") as caught:
        settings.load()
    assert value not in str(caught.value)


def test_deadlines_are_durations_by_dag(monkeypatch) -> None:
    monkeypatch.setenv("AGGREGATOR_DEADLINES", '{"click_rollups": "PT90M", "telemetry_daily": "02:00:00"}')
    assert deadline_of("click_rollups") == timedelta(minutes=90)
    assert deadline_of("telemetry_daily") == timedelta(hours=2)
    assert deadline_of("ohlcv_aggregation") == DEADLINES["ohlcv_aggregation"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ('{"click_rollups": "soon"}', "AGGREGATOR_DEADLINES"),
        ('{"click_rollups": "PT0S"}', "AGGREGATOR_DEADLINES"),
        ('{"no_such_dag": "PT1H"}', "there is no DAG no_such_dag"),
        ("soon", "aggregator_deadlines"),
    ],
)
def test_deadlines_that_are_wrong_are_named(monkeypatch, value: str, said: str) -> None:
    monkeypatch.setenv("AGGREGATOR_DEADLINES", value)
    with pytest.raises(HardError, match=said):
        deadline_of("click_rollups")
