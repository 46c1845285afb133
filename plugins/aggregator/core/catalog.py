"""The facts of every DAG: owners, tags, deadlines."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum

from aggregator.core.errors import PermanentError
from aggregator.core.settings import DeadlineSettings


class Owner(StrEnum):
    """Who is asked about a DAG: the team of the product it serves."""

    ANALYTICS = "analytics"
    CLICKS = "clicks"
    KPI = "kpi"
    MARKET_DATA = "market-data"
    TELEMETRY = "telemetry"


class Tag(StrEnum):
    """The closed set of tags: the product, and what a DAG reads from beside PostgreSQL."""

    ANALYTICS = "analytics"
    CLICKS = "clicks"
    BILLING = "billing"
    ANALYTICS_ENGINE = "analytics-engine"
    OHLCV = "ohlcv"
    TELEMETRY = "telemetry"
    KPI = "kpi"
    N8N = "n8n"


DEADLINES = {
    "analytics_daily_reports": timedelta(hours=1),
    "analytics_enrichment_metrics": timedelta(hours=1),
    "analytics_hourly_aggregation": timedelta(minutes=15),
    "analytics_monthly_usage": timedelta(hours=2),
    "analytics_score_distribution": timedelta(hours=1),
    "analytics_warmup_reset": timedelta(minutes=30),
    "click_rollups": timedelta(hours=1),
    "kpi_dispatch": timedelta(minutes=45),
    "ohlcv_aggregation": timedelta(minutes=4),
    "telemetry_daily": timedelta(hours=1),
}
"""DAG → the longest that a scheduled run may take, from when it is due; ``AGGREGATOR_DEADLINES`` has the last word."""


def deadline_of(dag_id: str) -> timedelta:
    """The longest that a scheduled run of a DAG may take, from when it is due.

    Args:
        dag_id: Whose.

    Returns:
        The value of ``AGGREGATOR_DEADLINES``; the default if there is none, or if the setting is invalid.

    Raises:
        PermanentError: The DAG has no default.
    """
    if dag_id not in DEADLINES:
        msg = (
            f"DAG {dag_id} has no deadline, so it cannot be loaded. Add it to DEADLINES in "
            "plugins/aggregator/core/catalog.py. AGGREGATOR_DEADLINES only changes a deadline that is there."
        )
        raise PermanentError(msg)
    return deadline_settings()[0].get(dag_id, DEADLINES[dag_id])


def deadline_settings() -> tuple[dict[str, timedelta], str | None]:
    """The deadlines of ``AGGREGATOR_DEADLINES``, and what is wrong with it."""
    try:
        different = DeadlineSettings.load().aggregator_deadlines
    except PermanentError as error:
        return {}, f"{error} The defaults apply."
    if unknown := different.keys() - DEADLINES.keys():
        names = ", ".join(sorted(unknown))
        return different, f"Invalid settings: AGGREGATOR_DEADLINES: there is no DAG {names}. Correct its name."
    return different, None
