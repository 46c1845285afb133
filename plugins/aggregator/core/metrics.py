"""Figures of every task: in its log as fields, in its XCom as returned, and as Airflow's metrics (spec: alerts).

Airflow sends metrics to StatsD or OpenTelemetry as it is configured (``[metrics]``). Each has the tags ``dag_id`` and
``task_id``; plain StatsD, which knows no tags, leaves them out. A try that fails sends none.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from airflow.sdk import Context

DURATION: Final = "aggregator.task.duration"

COUNTERS: Final = {
    "read": ("aggregator.rows.read", "Rows of the source's answer"),
    "inserted": ("aggregator.rows.inserted", "Rows that are new"),
    "updated": ("aggregator.rows.updated", "Rows that differ from what was stored"),
    "unchanged": ("aggregator.rows.unchanged", "Rows that were stored already, and were not written"),
    "deleted": ("aggregator.rows.deleted", "Rows that were deleted"),
    "duplicates": ("aggregator.rows.duplicates", "Rows whose key came a second time"),
    "skipped": ("aggregator.rows.skipped", "Rows of the answer that were left out"),
    "processed": ("aggregator.rollups.processed", "Rollups that are stored"),
    "reset": ("aggregator.counters.reset", "Warm-up counters that were reset"),
    "requests": ("aggregator.requests.sent", "Requests to Analytics Engine or n8n, repeated ones included"),
    "retryCount": ("aggregator.requests.repeated", "Requests to n8n after the first one"),
    "tasks": ("aggregator.ohlcv.tasks", "OHLCV tasks that were worked on"),
    "bars": ("aggregator.ohlcv.bars", "Bars that were built"),
    "poor_bars": ("aggregator.ohlcv.poor_bars", "Bars of quality 0 or -1"),
    "skipped_windows": ("aggregator.ohlcv.skipped_windows", "Windows without a candle"),
    "failed": ("aggregator.ohlcv.failed_tasks", "OHLCV tasks that failed hard"),
}
"""Count in what a task returns → the metric's name, and what it counts."""


def report(context: Context, result: Any) -> None:
    """Report the figures of a task that has done its work: the ``post_execute`` of every task.

    Those of a dry run are logged and not counted. The result's ``dry_run`` says so; without it, the param ``dryRun``.

    Args:
        context: Airflow's context of the task.
        result: What the task returned; the counts in it that :data:`COUNTERS` names are reported.
    """
    is_dry_run = context["params"].get("dryRun", False)
    if isinstance(result, Mapping):
        is_dry_run = result.get("dry_run", is_dry_run)
    _report(context, result, counted=not is_dry_run)


def report_sums(context: Context, result: Any) -> None:
    """Report the figures of a task that sums up those of others, which are counted already: they are logged only.

    Args:
        context: As for :func:`report`.
        result: As for :func:`report`.
    """
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
        "Figures", **tags, run_id=task.run_id, seconds=round(elapsed.total_seconds(), 3), **found
    )


def counts(result: Any) -> dict[str, int]:
    """The counts in what a task returned.

    Args:
        result: A mapping with counts, or anything else, in which there are none.
    """
    if not isinstance(result, Mapping):
        return {}
    return {
        key: value
        for key, value in result.items()
        if key in COUNTERS and isinstance(value, int) and not isinstance(value, bool)
    }
