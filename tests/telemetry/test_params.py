"""Days of a run, and errors of its params."""

from __future__ import annotations

from datetime import date

import pytest
from pydantic import ValidationError

from aggregator.core.params import problems
from aggregator.telemetry.params import TelemetryDailyParams

OWN = date(2026, 11, 15)


@pytest.mark.parametrize(
    ("given", "first", "last"),
    [
        ({}, OWN, OWN),
        ({"startDate": None, "endDate": "", "other": 1}, OWN, OWN),
        ({"startDate": "2024-01-01", "endDate": "2024-12-31"}, date(2024, 1, 1), date(2024, 12, 31)),
        ({"startDate": "2024-02-29"}, date(2024, 2, 29), date(2024, 2, 29)),
        ({"endDate": "2024-02-29"}, date(2024, 2, 29), date(2024, 2, 29)),
        ({"startDate": "9999-12-31"}, date(9999, 12, 31), date(9999, 12, 31)),
    ],
)
def test_params_select_the_days(given: dict[str, object], first: date, last: date) -> None:
    assert TelemetryDailyParams.model_validate(given).days(OWN) == (first, last)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"startDate": "yesterday"}, "startDate: a day is written YYYY-MM-DD"),
        ({"endDate": "2026-11-15T00:00:00"}, "endDate: a day is written YYYY-MM-DD"),
        ({"startDate": "20260101"}, "startDate: a day is written"),
        ({"startDate": "\uff12\uff10\uff12\uff16-01-01"}, "startDate: a day is written"),
        ({"startDate": "2026-01-01\n"}, "startDate: a day is written"),
        ({"startDate": 1700000000}, "startDate: a day is written"),
        ({"startDate": ["2026-01-01"]}, "startDate: a day is written"),
        ({"startDate": "2026-02-29"}, "startDate: Input should be a valid date"),
        ({"startDate": "2026-01-02", "endDate": "2026-01-01"}, "startDate 2026-01-02 is after endDate 2026-01-01"),
        ({"startDate": "2024-01-01", "endDate": "2025-01-01"}, "are 367 days, and one run covers 366 days at most"),
        ({"dryRun": "perhaps"}, "dryRun: Input should be a valid boolean"),
    ],
)
def test_invalid_param_is_named(given: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TelemetryDailyParams.model_validate(given)
    assert says in problems(caught.value.errors())
