"""The texts of alerts: severity and kind, DAG and window, start, consequence, next step, link."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from aggregator.core.catalog import CATALOG
from aggregator.core.text import listed, run_link

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aggregator.alerts.freshness import Freshness
    from aggregator.alerts.store import OpenAlert
    from aggregator.core.failures import Failure
    from aggregator.kpi.registry import Dropped

Window = tuple[datetime | None, datetime | None]
"""Start and end of a run's data interval; a run of a DAG without data intervals has none."""

MAX_NAMES = 5
"""Disabled tasks, or invalid KPIs, that a text names."""


def minute(time: datetime) -> str:
    """A timestamp to the minute, in UTC."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def minutes(*times: datetime) -> list[str]:
    """Timestamps to the minute, in UTC but without ``UTC``, and without the date if all have the same date."""
    same_day = len({time.astimezone(UTC).date() for time in times}) == 1
    return [f"{time.astimezone(UTC):{'%H:%M' if same_day else '%Y-%m-%d %H:%M'}}" for time in times]


def failed(dag_id: str, run_id: str, run: Any, failure: Failure | None, since: datetime) -> str:
    """The text of an alert about a failed run."""
    name = f"{run_id}, due {minute(run.run_after)}" if run else run_id
    severity, next_step = "CRITICAL", f"fix the cause, then clear run {name}."
    if redone_by_next(dag_id, run):
        severity, next_step = "WARNING", f"none if the next run succeeds, it includes the work of run {name}."
    window = (run.data_interval_start, run.data_interval_end) if run else (None, None)
    return _joined(
        f"{severity} FAILED: {dag_id}{_window(window)} failed at {minute(since)}.",
        _reason(failure) if failure else None,
        _impact(dag_id),
        f"Next step: {next_step}",
        run_link(dag_id, run_id),
    )


def late(dag_id: str, run_id: str, due: datetime, state: str, deadline: datetime, window: Window) -> str:
    """The text of an alert about a late run."""
    return _joined(
        f"WARNING LATE: {dag_id}{_window(window)} has not finished by its deadline, {minute(deadline)}.",
        f"Run {run_id}, due {minute(due)}, is {state}.",
        _impact(dag_id),
        "Next step: open the run and read the log of its unfinished task.",
        "If no task is running, check the scheduler and the workers.",
        run_link(dag_id, run_id),
    )


def stale(found: Freshness, now: datetime) -> str:
    """The text of an alert about stale data."""
    target, newest, waiting_since = found.target, found.newest or now, found.waiting_since or now
    ends, since, by, at = minutes(newest, waiting_since, waiting_since + (target.due or target.max_age), now)
    due = f"{target.rule.source} since {'then' if since == ends else since} were due"
    return _joined(
        f"CRITICAL STALE: {target.table} ends at {ends}; {due}{' in it' if target.due else ''} by {by}, "
        f"now it is {at} UTC.",
        str(found.lag) if found.lag else None,
        _impact(target.dag_id),
        f"Next step: check that the scheduler is running and that {target.dag_id} is not paused."
        if target.due
        else f"Next step: check the feed that writes {target.table}.",
        run_link(target.dag_id),
    )


def dead_letters(depth: int, since: datetime) -> str:
    """The text of an alert about dead letters."""
    return _joined(
        f"WARNING DEAD LETTERS: {depth} failed runs of the analytics suite were not re-run, the oldest failed at "
        f"{minute(since)}.",
        "Their tables lack data.",
        "Next step: list them with: python -m aggregator.alerts.dead_letters list",
    )


def disabled(tasks: Sequence[str], since: datetime) -> str:
    """The text of an alert about disabled OHLCV tasks."""
    return _joined(
        f"CRITICAL DISABLED: OHLCV tasks {listed(tasks, MAX_NAMES)}: disabled after repeated permanent errors, the "
        f"last at {minute(since)}.",
        "No bars are built for them.",
        "Next step: read their errors in ops.ops_issues, correct the candles, then run: "
        "python -m aggregator.ohlcv reset",
        run_link("ohlcv_aggregation"),
    )


def kpi_registry(dropped: Sequence[Dropped]) -> str:
    """The text of an alert about entries of the KPI registry that are not sent."""
    entries = listed([f"{name} ({reason})" for name, reason in dropped], MAX_NAMES, separator="; ")
    return _joined(
        f"CRITICAL REGISTRY: entries of the KPI registry are invalid: {entries}.",
        "kpi_dispatch does not send them, and sends no earlier version instead.",
        "Next step: correct the entries, then check them with: python -m aggregator.kpi.registry validate.",
        "To send them on the same day, trigger a run of kpi_dispatch: it leaves out the KPIs that were sent.",
        run_link("kpi_dispatch"),
    )


class Outcome(StrEnum):
    """How a run with an alert ended."""

    SUCCEEDED = "succeeded"
    MARKED = "marked"
    REDONE = "redone"
    FAILED = "failed"
    DELETED = "deleted"


_OUTCOMES = {
    Outcome.SUCCEEDED: ("Run {} succeeded.", "{} runs succeeded."),
    Outcome.MARKED: (
        "Run {} was marked as success: Airflow did not do its work. Check its data.",
        "{} runs were marked as success: Airflow did not do their work. Check their data.",
    ),
    Outcome.REDONE: ("A later run did the work of run {}.", "Later runs did the work of {} runs."),
    Outcome.FAILED: ("Run {} failed.", "{} runs failed."),
    Outcome.DELETED: ("Run {} was deleted.", "{} runs were deleted."),
}
"""The sentence about one run, and about several."""


def recovered(alert: OpenAlert, outcomes: Mapping[str, Outcome]) -> str | None:
    """The text of the recovery of late or failed runs.

    Returns:
        The text; None if no run succeeded, because all were deleted, or failed and have another alert.
    """
    runs = {outcome: [run_id for run_id in outcomes if outcomes[run_id] is outcome] for outcome in Outcome}
    if runs[Outcome.SUCCEEDED] or runs[Outcome.REDONE]:
        state = "is no longer late." if alert.kind == "late" else "has recovered."
        start = f"RECOVERED: {alert.subject} {state}"
    elif runs[Outcome.MARKED]:
        start = f"CLOSED: {alert.subject} has no open alert, but did not recover."
    else:
        return None
    return _joined(
        start,
        *(
            one.format(runs[outcome][0]) if len(runs[outcome]) == 1 else several.format(len(runs[outcome]))
            for outcome, (one, several) in _OUTCOMES.items()
            if runs[outcome]
        ),
        f"The alert was open since {minute(alert.since)}.",
        run_link(alert.subject, alert.members[-1]),
    )


def redone_by_next(dag_id: str, run: Any) -> bool:
    """Whether the next scheduled run of the DAG includes the work of this one.

    Rebuilds, backfills and cleared runs process what they were started for, so no other run does their work.
    """
    facts = CATALOG.get(dag_id)
    return bool(facts and facts.catches_up and run and run.run_type == "scheduled" and not run.clear_number)


def _joined(*sentences: str | None) -> str:
    return " ".join(sentence for sentence in sentences if sentence)


def _impact(dag_id: str) -> str | None:
    return CATALOG[dag_id].impact if dag_id in CATALOG else None


def _window(window: Window) -> str:
    start, end = window
    if start is None or end is None or start == end:
        return ""
    first, last = minutes(start, end)
    day = f"{start.astimezone(UTC):%Y-%m-%d} " if len(first) == len("00:00") else ""
    return f" (window {day}{first} to {last} UTC)"


def _reason(failure: Failure) -> str:
    more = f" ({failure.instances} instances)" if failure.instances > 1 else ""
    if not failure.read:
        return f"Task {failure.task_id} failed. Its log has the error."
    if failure.reason is None:
        return f"Task {failure.task_id}{more} ended without an error, as after a kill."
    how = f"after try {failure.tries}" if failure.transient else "with a permanent error, which is not retried"
    return f"Task {failure.task_id}{more} failed {how}: {failure.reason}"
