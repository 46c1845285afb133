"""Settings: typed, checked, and named when they are wrong."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from aggregator import settings
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


def test_every_setting_is_documented(repository) -> None:
    text = (repository / "docs" / "configuration.md").read_text()
    missing = [name for name in settings.Settings.model_fields if f"`{name.upper()}`" not in text]
    assert settings.Settings.model_fields
    assert not missing
