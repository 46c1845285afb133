"""Alerts as rows of ``ops.alerts``, each with the messages about it in ``ops.alert_messages``: written before sent."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from aggregator.postgres.hook import PostgresTransactionHook

CONNECTION = "ops_db"

TIMEOUT = timedelta(seconds=30)
"""The longest that a statement about alerts may take."""


class Kind(StrEnum):
    """What an alert is about."""

    LATE = "late"
    FAILED = "failed"
    STALE = "stale"
    DEAD_LETTERS = "dead_letters"
    TASK_DISABLED = "task_disabled"


@dataclass(frozen=True)
class Alert:
    """Something that somebody on call has to know.

    Attributes:
        kind: What it is about.
        subject: The DAG, or the table or list. Only one alert is open for a kind and a subject.
        since: When it began.
        text: What is told; without secrets or values of rows.
        members: Runs of the DAG, or tasks, that are affected.
    """

    kind: Kind
    subject: str
    since: datetime
    text: str
    members: tuple[str, ...] = ()


@dataclass(frozen=True)
class OpenAlert:
    """An alert that is not settled.

    Attributes:
        id: Of the row.
        kind: As in :class:`Alert`.
        subject: As in :class:`Alert`.
        members: All that were affected since it was raised, in the order in which they were.
        since: As in :class:`Alert`.
    """

    id: int
    kind: Kind
    subject: str
    members: tuple[str, ...]
    since: datetime


def raise_alert(alert: Alert) -> bool:
    """Raise an alert, or add its members to the one that is open.

    Members that follow are told again an hour after the last message at the earliest, so that a month that is cleared
    and fails, or a DAG that fails every five minutes, makes no storm.

    Args:
        alert: The alert.

    Returns:
        Whether there is a message about it to send.

    Raises:
        AggregatorError: It could not be stored.
    """
    return bool(execute("alerts/queries/raise.sql", {**asdict(alert), "members": list(alert.members)}))


def open_alerts() -> list[OpenAlert]:
    """The alerts that are not settled, the oldest first.

    Raises:
        AggregatorError: They could not be read.
    """
    return [
        OpenAlert(id_, Kind(kind), subject, tuple(members), since)
        for id_, kind, subject, members, since in execute("alerts/queries/open.sql", {})
    ]


def resolve(alert: OpenAlert, text: str | None) -> bool:
    """Settle an alert, unless it got members meanwhile.

    Args:
        alert: The alert.
        text: What is told about the recovery; None to say nothing.

    Returns:
        Whether it was settled now, and by this call.

    Raises:
        AggregatorError: It could not be stored.
    """
    return bool(execute("alerts/queries/resolve.sql", {"id": alert.id, "members": list(alert.members), "text": text}))


def hook(conn_id: str = CONNECTION) -> PostgresTransactionHook:
    """The hook of a database."""
    # DAG files import this module all the time, and need no database.
    from aggregator.postgres.hook import PostgresTransactionHook

    return PostgresTransactionHook(conn_id)


def execute(file: str, parameters: Mapping[str, Any], conn_id: str = CONNECTION) -> list[tuple[Any, ...]]:
    """Execute one statement as :func:`aggregator.postgres.hook.execute` does, in the time that alerts have.

    Args:
        file: Of the statement, below ``include/sql``.
        parameters: Its placeholders' values.
        conn_id: Connection of the database.

    Returns:
        Its rows.

    Raises:
        AggregatorError: It was not executed.
    """
    from aggregator.postgres import hook as postgres

    return postgres.execute(file, parameters, conn_id, timeout=TIMEOUT, application_name="aggregator/alerts")
