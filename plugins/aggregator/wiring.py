"""The arguments that a DAG file passes to Airflow, made from the DAG's entry in the catalog."""

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
from aggregator.core.catalog import Owner, Schedule, deadline_of, deadline_settings, facts_of, schedule_of
from aggregator.core.errors import PermanentError
from aggregator.core.paths import SQL
from aggregator.core.retry_policy import TransientOnlyRetryPolicy
from aggregator.core.settings import ScheduleSettings
from aggregator.core.timetable import OffsetCronTimetable

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


def dag_args(dag_id: str, **task_args: Any) -> dict[str, Any]:
    """The arguments of a DAG: ``with DAG(**dag_args("click_rollups"), doc_md=__doc__, max_active_runs=3):``.

    Args:
        dag_id: A DAG in the catalog.
        task_args: Arguments of its tasks that differ from :func:`default_args`.

    Raises:
        PermanentError: The DAG has no entry in the catalog.
    """
    facts = facts_of(dag_id)
    _, problem = deadline_settings()
    if problem:
        log.error("%s", problem)
    callback: Any = notify_failed
    if facts.owner is Owner.ANALYTICS:
        # The suite has a pause and dead letters.
        callback = [dead_letters.record, notify_failed]
        suite_args = {
            "pre_execute": check_params_and_pause,
            "on_failure_callback": dead_letters.record,
            "on_success_callback": dead_letters.resolve,
        }
        task_args = {**suite_args, **task_args}
    return {
        "dag_id": dag_id,
        "description": facts.description,
        "schedule": timetable(schedule_of(dag_id)),
        "catchup": facts.schedule.offset is not None,
        "tags": list(facts.tags),
        "deadline": alert_after(deadline_of(dag_id), note=problem),
        "template_searchpath": [str(SQL)],
        "on_failure_callback": callback,
        "default_args": default_args(facts.owner, **task_args),
    }


def timetable(schedule: Schedule) -> OffsetCronTimetable | CronTriggerTimetable:
    """Airflow's timetable for a schedule of the catalog."""
    if schedule.offset is None:
        # Without this, a new DAG starts with a run for a past time if it was due recently (Airflow 3.3.2).
        return CronTriggerTimetable(schedule.cron, timezone="UTC", run_immediately=timedelta())
    try:
        return OffsetCronTimetable(schedule.cron, offset=schedule.offset, start=ScheduleSettings.load().start_date)
    except PermanentError as error:
        log.error("%s Until then, DAGs that have never run do not start.", error)  # noqa: TRY400
        return OffsetCronTimetable(schedule.cron, offset=schedule.offset, start_error=str(error))


def default_args(owner: Owner, **task_args: Any) -> dict[str, Any]:
    """Default arguments of every task, overridden by ``task_args``.

    Transient errors are retried after 1, 2, 4, 8 and 10 minutes, or when the server requests it. Permanent errors are
    not retried.
    """
    return {
        "owner": owner.value,
        # With catchup, Airflow requires a start date or an explicit None. A date would keep Airflow from running the
        # tasks of earlier days in a backfill, so the schedule has the start date instead.
        "start_date": None,
        "retries": 5,
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": timedelta(minutes=10),
        "retry_policy": TransientOnlyRetryPolicy(),
        "execution_timeout": timedelta(minutes=10),
        "pre_execute": params.check,
        "post_execute": metrics.report,
        **task_args,
    }


def check_params_and_pause(context: Context) -> None:
    """Reject wrong params, and skip scheduled runs while the analytics suite is paused."""
    params.check(context)
    skip_while_paused(context)
