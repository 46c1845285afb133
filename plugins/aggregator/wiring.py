"""Arguments that DAG files pass to Airflow: retries, callbacks, schedules, deadlines."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import CronTriggerTimetable

from aggregator.alerts import dead_letters
from aggregator.alerts.deadline import alert_after
from aggregator.alerts.notifier import notify_failed
from aggregator.analytics.suite import skip_while_paused
from aggregator.core import metrics, params
from aggregator.core.catalog import Owner, deadline_of, deadline_settings
from aggregator.core.errors import PermanentError
from aggregator.core.paths import SQL
from aggregator.core.retry_policy import TransientOnlyRetryPolicy
from aggregator.core.settings import ScheduleSettings
from aggregator.core.timetable import OffsetCronTimetable

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


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
    except PermanentError as error:
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
    _, problem = deadline_settings()
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
        on_success_callback=dead_letters.resolve,
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
