"""Texts of alerts: kind, DAG and window, since when, the reason, the next step, a link."""

from __future__ import annotations

from datetime import UTC
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from aggregator.core.catalog import CATALOG
from aggregator.core.text import run_link

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from aggregator.alerts.freshness import Freshness
    from aggregator.alerts.store import OpenAlert
    from aggregator.core.failures import Failure


def minute(moment: datetime) -> str:
    """A timestamp as people read it, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def minutes(*moments: datetime) -> list[str]:
    """Timestamps as people read them, in UTC: without the day if all are of the same day.

    The text says ``UTC`` once.

    Args:
        moments: The timestamps.
    """
    same_day = len({moment.astimezone(UTC).date() for moment in moments}) == 1
    return [f"{moment.astimezone(UTC):{'%H:%M' if same_day else '%Y-%m-%d %H:%M'}}" for moment in moments]


def failed(dag_id: str, run_id: str, run: Any, failure: Failure | None, since: datetime) -> str:
    """The text of an alert about a failed run.

    Args:
        dag_id: The DAG.
        run_id: The run.
        run: The run as Airflow's API or database has it; None if nothing more is known of it.
        failure: Its first failed task; None if it is not known.
        since: When the run failed.
    """
    next_step = "The next scheduled run does its work." if redone_by_next(dag_id, run) else "Fix the cause, then clear"
    due = f", due {minute(run.run_after)}" if run else ""
    return " ".join(
        [
            f"FAILED: {dag_id}{_window(run)} failed at {minute(since)}.",
            *([_reason(failure)] if failure else []),
            f"{next_step} Run: {run_id}{due}." if next_step.endswith(".") else f"{next_step} run {run_id}{due}.",
            run_link(dag_id, run_id),
        ]
    )


def late(dag_id: str, run_id: str, due: datetime, state: str, deadline: datetime) -> str:
    """The text of an alert about a late run.

    Args:
        dag_id: The DAG.
        run_id: The run.
        due: When the run was due.
        state: Its state.
        deadline: By when it should have finished.
    """
    text = f"LATE: {dag_id} has not finished by its deadline, {minute(deadline)}."
    return f"{text} Run {run_id}, due {minute(due)}, is {state}. {run_link(dag_id, run_id)}"


def stale(found: Freshness, now: datetime) -> str:
    """The text of an alert about stale data.

    Args:
        found: The table, which has data and waits for more.
        now: The time of the check.
    """
    target, newest, waiting_since = found.target, found.newest or now, found.waiting_since or now
    ends, since, by, at = minutes(newest, waiting_since, waiting_since + (target.due or target.max_age), now)
    due = f"{target.source} since {'then' if since == ends else since} were due"
    sentences = [
        f"STALE: {target.table} ends at {ends}; {due}{' in it' if target.due else ''} by {by}, now it is {at} UTC.",
        *([str(found.lag)] if found.lag else []),
        f"Is the {'scheduler' if target.due else 'feed'} running?",
        run_link(target.dag_id),
    ]
    return " ".join(sentences)


class Outcome(StrEnum):
    """How a run ended that an alert was about."""

    SUCCEEDED = "succeeded"
    MARKED = "marked"
    REDONE = "redone"
    FAILED = "failed"
    DELETED = "deleted"


_OUTCOMES = {
    Outcome.SUCCEEDED: ("{} succeeded.", "{} succeeded."),
    Outcome.MARKED: (
        "{} was marked as success: Airflow did not do its work. Check its data.",
        "{} were marked as success: Airflow did not do their work. Check their data.",
    ),
    Outcome.REDONE: ("A later run did the work of {}.", "Later runs did the work of {}."),
    Outcome.FAILED: ("{} failed.", "{} failed."),
    Outcome.DELETED: ("{} was deleted.", "{} were deleted."),
}
"""What a text says of one run, and of several."""


def recovered(alert: OpenAlert, ended: Mapping[str, Outcome]) -> str | None:
    """The text of the recovery of late or failed runs.

    Args:
        alert: The alert about them.
        ended: How each run ended.

    Returns:
        The text; None if there is nothing to report, because all runs were deleted, or failed and have another alert.
    """
    runs = {outcome: [run_id for run_id in ended if ended[run_id] is outcome] for outcome in Outcome}
    if runs[Outcome.SUCCEEDED] or runs[Outcome.REDONE]:
        what = "is no longer late." if alert.kind == "late" else "has recovered."
        begin = f"RECOVERED: {alert.subject} {what}"
    elif runs[Outcome.MARKED]:
        begin = f"CLOSED: {alert.subject}."
    else:
        return None
    sentences = []
    for outcome, (one, several) in _OUTCOMES.items():
        ids = runs[outcome]
        if ids:
            text = one.format(f"Run {ids[0]}") if len(ids) == 1 else several.format(f"{len(ids)} runs")
            sentences.append(text.replace(" of Run ", " of run "))
    since = f"The alert was open since {minute(alert.since)}."
    return " ".join([begin, *sentences, since, run_link(alert.subject, alert.members[-1])])


def redone_by_next(dag_id: str, run: Any) -> bool:
    """Whether the next scheduled run of the DAG does what this one has not done.

    It does not for a rebuild, a backfill and a run that was cleared: those process what they are started for.

    Args:
        dag_id: The DAG.
        run: The run as Airflow's API or database has it; None if nothing is known of it.
    """
    facts = CATALOG.get(dag_id)
    return (
        facts is not None
        and facts.catches_up
        and run is not None
        and run.run_type == "scheduled"
        and not run.clear_number
    )


def _window(run: Any) -> str:
    start, end = (run.data_interval_start, run.data_interval_end) if run else (None, None)
    if start is None or end is None or start == end:
        return ""
    first, last = minutes(start, end)
    day = f"{start.astimezone(UTC):%Y-%m-%d} " if len(first) == len("00:00") else ""
    return f" (window {day}{first} to {last} UTC)"


def _reason(failure: Failure) -> str:
    more = f" ({failure.instances} instances)" if failure.instances > 1 else ""
    if not failure.read:
        return f"Task {failure.task_id} failed; its log has the error."
    if failure.reason is None:
        return f"Task {failure.task_id}{more} ended without an error, as after a kill."
    retries = f"after try {failure.tries}" if failure.transient else "and is not retried, the error is permanent"
    return f"Task {failure.task_id}{more} failed {retries}: {failure.reason}"
