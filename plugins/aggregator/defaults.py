"""What all DAGs have in common: the only place for it."""

from __future__ import annotations

import logging
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from airflow.sdk import CronTriggerTimetable

from aggregator import dead_letters, metrics, params
from aggregator.alerts.deadline import alert_after
from aggregator.alerts.notifier import notify_failed
from aggregator.analytics import skip_while_paused
from aggregator.errors import HardError
from aggregator.paths import SQL
from aggregator.retry_policy import TransientOnlyRetryPolicy
from aggregator.settings import DeadlineSettings, ScheduleSettings
from aggregator.timetables.offset_cron import OffsetCronTimetable

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


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
        HardError: The DAG has no default.
    """
    if dag_id not in DEADLINES:
        msg = (
            f"DAG {dag_id} has no deadline, so it cannot be loaded. Add it to DEADLINES in "
            "plugins/aggregator/defaults.py. AGGREGATOR_DEADLINES only changes a deadline that is there."
        )
        raise HardError(msg)
    return _deadline_settings()[0].get(dag_id, DEADLINES[dag_id])


def _deadline_settings() -> tuple[dict[str, timedelta], str | None]:
    """The deadlines of ``AGGREGATOR_DEADLINES``, and what is wrong with it."""
    try:
        different = DeadlineSettings.load().aggregator_deadlines
    except HardError as error:
        return {}, f"{error} The defaults apply."
    if unknown := different.keys() - DEADLINES.keys():
        names = ", ".join(sorted(unknown))
        return different, f"Invalid settings: AGGREGATOR_DEADLINES: there is no DAG {names}. Correct its name."
    return different, None


def default_args(owner: Owner, **different: Any) -> dict[str, Any]:
    """Arguments that every task of a DAG starts from.

    A transient error is retried after 1, 2, 4, 8 and 10 minutes (or when the other side says), a hard one never.

    Args:
        owner: Who is asked about the DAG.
        different: What this DAG needs otherwise, by the operator's argument.
    """
    return {
        "owner": owner.value,
        # Airflow refuses catchup without a start date unless its absence is said here. The schedule has one instead: of
        # a DAG with a start date, Airflow would not run the tasks of an older day that somebody backfills.
        "start_date": None,
        "retries": 5,
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": timedelta(minutes=10),
        "retry_policy": TransientOnlyRetryPolicy(),
        "execution_timeout": timedelta(minutes=10),
        "pre_execute": params.check,
        "post_execute": metrics.report,
        **different,
    }


def schedule(cron: str, *, offset: timedelta) -> OffsetCronTimetable:
    """The schedule of a DAG with a window.

    Args:
        cron: Where data intervals begin and end, in UTC.
        offset: Time from the end of an interval to its run.
    """
    try:
        return OffsetCronTimetable(cron, offset=offset, start=ScheduleSettings.load().start_date)
    except HardError as error:
        log.error("%s A DAG that has never run does not start until then.", error)  # noqa: TRY400
        return OffsetCronTimetable(cron, offset=offset, start_error=str(error))


def trigger(cron: str) -> CronTriggerTimetable:
    """The schedule of a DAG that has no window: its runs fire at the moment that is their logical date.

    Args:
        cron: When, in UTC.
    """
    # A first start makes no run of the past. The default, False, does so on 3.3.2 for a tenth of the time between two.
    return CronTriggerTimetable(cron, timezone="UTC", run_immediately=timedelta())


def dag_args(dag_id: str) -> dict[str, Any]:
    """Arguments that every DAG has: catch up on what was missed, find SQL below ``include/sql``, tell late and failed.

    Args:
        dag_id: Of the DAG, whose deadline it is.
    """
    _, problem = _deadline_settings()
    if problem:
        log.error("%s", problem)
    return {
        "catchup": True,
        "template_searchpath": [str(SQL)],
        "deadline": alert_after(deadline_of(dag_id), note=problem),
        "on_failure_callback": notify_failed,
    }


def analytics_args(**different: Any) -> dict[str, Any]:
    """Arguments that every task of the analytics suite starts from: also the suite's pause, and its dead letters.

    Args:
        different: What this DAG needs otherwise, by the operator's argument.
    """
    return default_args(
        Owner.ANALYTICS,
        pre_execute=check_params_and_pause,
        on_failure_callback=dead_letters.record,
        on_success_callback=dead_letters.settle,
        **different,
    )


def check_params_and_pause(context: Context) -> None:
    """Refuse wrong params, and skip scheduled runs while the suite is paused: the ``pre_execute`` of its tasks.

    Args:
        context: Airflow's task context.
    """
    params.check(context)
    skip_while_paused(context)


def analytics_dag_args(dag_id: str) -> dict[str, Any]:
    """Arguments that every DAG of the analytics suite has: also a dead letter where a task could not write it.

    Args:
        dag_id: As for :func:`dag_args`.
    """
    return {**dag_args(dag_id), "on_failure_callback": [dead_letters.record, notify_failed]}
