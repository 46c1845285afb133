"""Longer time limits, so that a busy machine makes no test fail."""

from __future__ import annotations

from datetime import timedelta

import pytest

from aggregator.alerts import freshness
from aggregator.web import health

PATIENCE = 120.0


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the time limits of all responses; a test of a limit sets its own."""
    monkeypatch.setattr(health, "QUERY_TIMEOUT", PATIENCE)
    monkeypatch.setattr(freshness, "QUERY_TIMEOUT", timedelta(seconds=PATIENCE))
