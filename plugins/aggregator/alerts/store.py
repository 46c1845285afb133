"""Alerts in ``ops.alerts``, and their outbox ``ops.alert_messages``. Both are written before a message is sent.

All functions raise an AggregatorError if the database does not respond or refuses a statement.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from aggregator.core.paths import SQL

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from datetime import datetime

    from psycopg import Cursor
    from psycopg.rows import TupleRow

    from aggregator.postgres.hook import PostgresTransactionHook

CONNECTION = "ops_db"

TIMEOUT = timedelta(seconds=30)
"""Timeout of a statement. The end of a task waits for it."""


class Kind(StrEnum):
    """Kind of an alert."""

    LATE = "late"
    FAILED = "failed"
    STALE = "stale"
    DEAD_LETTERS = "dead_letters"
    TASK_DISABLED = "task_disabled"
    KPI_REGISTRY = "kpi_registry"


@dataclass(frozen=True)
class Alert:
    """An alert to raise.

    Attributes:
        kind: Its kind.
        subject: The DAG or table. At most one alert is open for a kind and a subject.
        since: When the problem started.
        text: The message, without secrets and without values of rows.
        members: Affected runs of the DAG, or affected tasks.
    """

    kind: Kind
    subject: str
    since: datetime
    text: str
    members: tuple[str, ...] = ()


@dataclass(frozen=True)
class OpenAlert:
    """An alert that is not resolved: the id of its row and what :class:`Alert` has, with all members as added."""

    id: int
    kind: Kind
    subject: str
    members: tuple[str, ...]
    since: datetime


def raise_alert(alert: Alert) -> bool:
    """Raise an alert, or add its members to the open alert.

    New members of an open alert write at most one message an hour. So a cleared month whose runs fail is one message.

    Returns:
        Whether a message was written.
    """
    return bool(execute("alerts/queries/raise.sql", {**asdict(alert), "members": list(alert.members)}))


def open_alerts() -> list[OpenAlert]:
    """The alerts that are not resolved, the oldest first."""
    return [
        OpenAlert(id_, Kind(kind), subject, tuple(members), since)
        for id_, kind, subject, members, since in execute("alerts/queries/open.sql", {})
    ]


def resolve(alert: OpenAlert, text: str | None) -> bool:
    """Resolve an alert, unless members were added since it was read. A message is written if there is a text."""
    return bool(execute("alerts/queries/resolve.sql", {"id": alert.id, "members": list(alert.members), "text": text}))


def hook(conn_id: str) -> PostgresTransactionHook:
    """The hook of a connection."""
    # DAG files import this module often, and need no database.
    from aggregator.postgres.hook import PostgresTransactionHook

    return PostgresTransactionHook(conn_id)


def transaction(conn_id: str = CONNECTION) -> AbstractContextManager[Cursor[TupleRow]]:
    """Open a transaction with the timeout of alerts."""
    return hook(conn_id).transaction(timeout=TIMEOUT, application_name="aggregator/alerts")


def execute(file: str, parameters: Mapping[str, Any], conn_id: str = CONNECTION) -> list[tuple[Any, ...]]:
    """Execute one statement, a file below ``include/sql``, in a transaction of its own."""
    with transaction(conn_id) as cursor:
        return cursor.execute((SQL / file).read_text(), parameters).fetchall()
