"""The pause of the analytics suite, and the messages of the former queue."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException

from aggregator.analytics.suite import skip_while_paused
from aggregator.core.catalog import CATALOG
from aggregator.core.errors import PermanentError


def context(run_type: str) -> Any:
    return {"dag_run": SimpleNamespace(run_type=run_type)}


def test_pause_skips_scheduled_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENABLE_ANALYTICS_CRON", "false")
    with pytest.raises(AirflowSkipException, match="ENABLE_ANALYTICS_CRON is false"):
        skip_while_paused(context("scheduled"))


@pytest.mark.parametrize("run_type", ["manual", "backfill"])
def test_pause_does_not_skip_manual_runs_and_backfills(monkeypatch: pytest.MonkeyPatch, run_type: str) -> None:
    monkeypatch.setenv("ENABLE_ANALYTICS_CRON", "false")
    skip_while_paused(context(run_type))


@pytest.mark.parametrize("value", [None, "", "true", "1"])
def test_scheduled_run_is_not_skipped_without_a_pause(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("ENABLE_ANALYTICS_CRON", raising=False)
    if value is not None:
        monkeypatch.setenv("ENABLE_ANALYTICS_CRON", value)
    skip_while_paused(context("scheduled"))


def test_invalid_setting_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENABLE_ANALYTICS_CRON", "perhaps")
    with pytest.raises(PermanentError, match="ENABLE_ANALYTICS_CRON"):
        skip_while_paused(context("scheduled"))


def test_catalog_has_the_messages_of_the_former_queue() -> None:
    assert sorted(facts.message for facts in CATALOG.values() if facts.message) == [
        "analytics.aggregate-hourly",
        "analytics.enrichment-metrics",
        "analytics.generate-daily-reports",
        "analytics.monthly-usage-summary",
        "analytics.score-distribution",
        "analytics.warmup-daily-reset",
    ]
