"""Generated inputs of the analytics DAGs, and how to store them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from psycopg import sql

from tests.airflow_context import context

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import psycopg
    from airflow.sdk import BaseOperator

ORGANIZATIONS = [str(UUID(int=number)) for number in (1, 2)]
CONTACTS = [None, *(str(UUID(int=number)) for number in (11, 12, 13))]
CAMPAIGNS = ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", str(UUID(int=99))]
NO_CAMPAIGNS = [
    None,
    "",
    "newsletter",
    "a0eebc999c0b4ef8bb6d6bb9bd380a11",
    "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
    "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\n",
    "g0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    "x" * 100,
]
MAILS = [
    f"email_{what}" for what in ("sent", "delivered", "opened", "clicked", "bounced", "complained", "unsubscribed")
]
TYPES = [*MAILS, "email_", "EMAIL_SENT", "page_view", "", "ü" * 92, "y" * 93, "y" * 99 + "z", "y" * 100]

examples = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def timestamps(start: datetime, end: datetime) -> st.SearchStrategy[datetime]:
    """Naive timestamps in and around a window, mostly at its boundaries."""
    tick = timedelta(microseconds=1)
    borders = [border + offset for border in (start, end) for offset in (-tick, timedelta(), tick, timedelta(hours=5))]
    return st.one_of(st.sampled_from(borders), st.datetimes(start - timedelta(days=1), end + timedelta(days=1)))


def activity(start: datetime, end: datetime) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Rows of ``analytics.contact_activity``, few contacts with many events."""
    row = st.fixed_dictionaries(
        {
            "organization_id": st.sampled_from(ORGANIZATIONS),
            "contact_id": st.sampled_from(CONTACTS),
            "event_type": st.sampled_from(TYPES),
            "event_source": st.sampled_from([*CAMPAIGNS, *NO_CAMPAIGNS]),
            "created_at": timestamps(start, end),
        }
    )
    return st.lists(row, max_size=60)


def store(connection: psycopg.Connection, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add rows to ``schema.table`` by COPY."""
    rows = list(rows)
    if not rows:
        return
    columns = list(rows[0])
    statement = sql.SQL("copy {} ({}) from stdin").format(
        sql.Identifier(*table.split(".")), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with connection.cursor().copy(statement) as copy:
        for row in rows:
            copy.write_row([row[column] for column in columns])


def replace(connection: psycopg.Connection, table: str, rows: Iterable[Mapping[str, Any]], *written: str) -> None:
    """Replace the rows of ``table``, and truncate the tables ``written``."""
    for name in (table, *written):
        connection.execute(sql.SQL("truncate {}").format(sql.Identifier(*name.split("."))))
    store(connection, table, rows)


def run(task: BaseOperator, start: datetime, end: datetime) -> dict[str, Any]:
    """One try of the task, for the window between two naive UTC timestamps."""
    # In Airflow every try is a new process. Here, the task would keep the connection of the previous test.
    vars(task).pop("hook", None)
    result: dict[str, Any] = task.execute(context(task, start.replace(tzinfo=UTC), end.replace(tzinfo=UTC)))
    return result


def run_day(task: BaseOperator, day: datetime) -> dict[str, Any]:
    """One try of the task, for the UTC day that starts at ``day``."""
    return run(task, day, day + timedelta(days=1))


def run_twice(task: BaseOperator, start: datetime, end: datetime) -> None:
    """Two tries of the task; the second writes nothing."""
    first = run(task, start, end)
    second = run(task, start, end)
    assert second == {
        "inserted": 0,
        "updated": 0,
        "unchanged": sum(first.values()),
        "duplicates": 0,
        "suspicious": False,
    }
