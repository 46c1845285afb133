"""The schedules that the products were promised, independent of the catalog."""

from __future__ import annotations

from datetime import timedelta

import pytest

from aggregator.core.catalog import CATALOG

DAY = "0 0 * * *"
SCHEDULES = {
    "analytics_daily_reports": (DAY, timedelta(hours=2)),
    "analytics_enrichment_metrics": (DAY, timedelta(hours=5)),
    "analytics_hourly_aggregation": ("0 * * * *", timedelta()),
    "analytics_monthly_usage": ("0 0 1 * *", timedelta(hours=3)),
    "analytics_score_distribution": (DAY, timedelta(hours=4)),
    "analytics_warmup_reset": (DAY, timedelta()),
    "click_rollups": (DAY, timedelta(hours=1)),
    "kpi_dispatch": ("0 12 * * *", None),
    "ohlcv_aggregation": ("*/5 * * * *", timedelta(minutes=1)),
    "telemetry_daily": (DAY, timedelta(hours=2)),
}
"""DAG → cron expression of its data intervals (of its runs, without intervals), and time from their end to the run."""


@pytest.mark.parametrize("dag_id", SCHEDULES)
def test_schedule_is_the_promised_one(dag_id: str) -> None:
    schedule = CATALOG[dag_id].schedule
    assert (schedule.cron, schedule.offset) == SCHEDULES[dag_id]
