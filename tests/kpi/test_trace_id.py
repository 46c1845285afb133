"""Trace ids: documented form, equal for the same run, different for other runs."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from aggregator.kpi.trace_id import trace_id

NOON = datetime(2025, 8, 14, 12, tzinfo=UTC)
FORM = r"trace_\d{8}_\d{6}_[a-z0-9]{8}"


@given(run_id=st.text(), run_time=st.datetimes(datetime(1000, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - of the zone
def test_trace_id_has_the_documented_form(run_id: str, run_time: datetime) -> None:
    assert re.fullmatch(FORM, trace_id("kpi_dispatch", run_id, run_time), re.ASCII)


def test_same_run_has_the_same_trace_id() -> None:
    first = trace_id("kpi_dispatch", "scheduled__1", NOON)
    assert first == "trace_20250814_120000_" + first[-8:]
    assert trace_id("kpi_dispatch", "scheduled__1", NOON) == first
    in_india = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert trace_id("kpi_dispatch", "scheduled__1", in_india) == first


def test_ten_thousand_runs_at_one_time_have_different_ids() -> None:
    assert len({trace_id("kpi_dispatch", f"manual__{number}", NOON) for number in range(10_000)}) == 10_000
