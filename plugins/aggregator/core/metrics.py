"""Report the counts of every task as log fields and as Airflow metrics (spec: alerts).

Airflow sends metrics to StatsD or OpenTelemetry, as configured in ``[metrics]``. Each metric has the tags ``dag_id``
and ``task_id``; plain StatsD drops them. A failed try sends no metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from airflow.sdk import Context

DURATION: Final = "aggregator.task.duration"

COUNTERS: Final = {
    "read": ("aggregator.rows.read", "Rows in the source's response"),
    "inserted": ("aggregator.rows.inserted", "Rows that were not stored before"),
    "updated": ("aggregator.rows.updated", "Rows that differ from the stored ones"),
    "unchanged": ("aggregator.rows.unchanged", "Rows that equal the stored ones and were not written"),
    "deleted": ("aggregator.rows.deleted", "Rows that were deleted"),
    "duplicates": ("aggregator.rows.duplicates", "Rows whose key occurred more than once"),
    "skipped": ("aggregator.rows.skipped", "Rows in the source's response that were left out"),
    "processed": ("aggregator.rollups.processed", "Rollups that were stored"),
    "reset": ("aggregator.counters.reset", "Warm-up counters that were reset"),
    "requests": ("aggregator.requests.sent", "Requests to Analytics Engine or n8n, retries included"),
    "retryCount": ("aggregator.requests.repeated", "Retries of requests to n8n"),
    "tasks": ("aggregator.ohlcv.tasks", "OHLCV tasks that were processed"),
    "bars": ("aggregator.ohlcv.bars", "Bars that were built"),
    "poor_bars": ("aggregator.ohlcv.poor_bars", "Bars of quality 0 or -1"),
    "skipped_windows": ("aggregator.ohlcv.skipped_windows", "Windows without a candle"),
    "failed": ("aggregator.ohlcv.failed_tasks", "OHLCV tasks that failed with a permanent error"),
}
"""Key in a task's result → name of the metric, and what it counts."""


def report(context: Context, result: Any) -> None:
    """Report the counts of a task that succeeded; the ``post_execute`` of every task.

    Counts of a dry run are logged and not sent as metrics. A run is dry if the result's ``dry_run`` is true; without
    that key, if the param ``dryRun`` is true.
    """
    is_dry_run = context["params"].get("dryRun", False)
    if isinstance(result, Mapping):
        is_dry_run = result.get("dry_run", is_dry_run)
    _report(context, result, counted=not is_dry_run)


def report_sums(context: Context, result: Any) -> None:
    """Log the counts of a task that sums the counts of other tasks. Those tasks sent them as metrics already."""
    _report(context, result, counted=False)


def _report(context: Context, result: Any, *, counted: bool) -> None:
    import structlog
    from airflow.sdk.observability import stats

    task = context["ti"]
    found = counts(result)
    elapsed = datetime.now(UTC) - task.start_date
    tags = {"dag_id": task.dag_id, "task_id": task.task_id}
    for key, count in found.items() if counted else ():
        stats.incr(COUNTERS[key][0], count, tags=tags)
    stats.timing(DURATION, elapsed, tags=tags)
    structlog.get_logger(__name__).info(
        "Task finished", **tags, run_id=task.run_id, seconds=round(elapsed.total_seconds(), 3), **found
    )


def counts(result: Any) -> dict[str, int]:
    """The counts in a task's result."""
    if not isinstance(result, Mapping):
        return {}
    return {key: value for key, value in result.items() if key in COUNTERS and type(value) is int}
