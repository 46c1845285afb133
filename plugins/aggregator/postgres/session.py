"""The start of every transaction of this project (spec: databases).

A database or a role may have its own defaults for the text of values. Behind a transaction pooler, each transaction may
run in another session, and poolers refuse or drop start-up ``options``. So each transaction sets what it depends on
and leaves nothing in its session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import IsolationLevel
from psycopg.rows import TupleRow, tuple_row

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

PINNED = {
    "bytea_output": "hex",
    "client_encoding": "UTF8",
    "datestyle": "ISO, MDY",
    "extra_float_digits": "1",
    "intervalstyle": "postgres",
    "standard_conforming_strings": "on",
    "timezone": "UTC",
}
"""Settings that change the meaning of a value's text."""

# Skips settings that the server does not have: managed servers run different versions.
_SET_LOCAL = """
select set_config(name, setting, true) from unnest(%s::text[], %s::text[]) as local (name, setting)
where current_setting(name, true) is not null
"""


def begin(connection: psycopg.Connection[Any], settings: Mapping[str, str] | None = None) -> psycopg.Cursor[TupleRow]:
    """Begin a transaction that neither depends on the session's settings nor changes them.

    Its isolation level is READ COMMITTED, and no statement is prepared on the server.

    Args:
        connection: A connection without an open transaction.
        settings: More settings for this transaction.

    Returns:
        A cursor that returns tuples. The caller commits or rolls back.
    """
    connection.autocommit = False
    connection.prepare_threshold = None
    connection.isolation_level = IsolationLevel.READ_COMMITTED
    cursor = connection.cursor(row_factory=tuple_row)
    pinned = {**PINNED, **(settings or {})}
    cursor.execute(_SET_LOCAL, [list(pinned), list(pinned.values())])
    return cursor
