"""The pause of the six DAGs of the analytics suite (spec: analytics suite)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowSkipException

from aggregator.core.settings import AnalyticsSettings

if TYPE_CHECKING:
    from airflow.sdk import Context


def skip_while_paused(context: Context) -> None:
    """Skip a task of a scheduled run while ``ENABLE_ANALYTICS_CRON`` is false.

    Manual runs and backfills are not skipped. A skipped run does its work when it is cleared after the pause.

    Raises:
        AirflowSkipException: The suite is paused. Airflow shows the task as skipped.
        PermanentError: The setting is invalid.
    """
    if context["dag_run"].run_type == "scheduled" and not AnalyticsSettings.load().enable_analytics_cron:
        msg = "ENABLE_ANALYTICS_CRON is false, so this scheduled run is skipped. Clear it after the pause to catch up."
        raise AirflowSkipException(msg)
