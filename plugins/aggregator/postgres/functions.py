"""Calls functions of the database by name, as ``include/sql/<product>/functions`` defines them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import sql

if TYPE_CHECKING:
    import psycopg
    from psycopg.rows import TupleRow


def call(
    connection: psycopg.Connection[TupleRow] | psycopg.Cursor[TupleRow], function: str, /, **arguments: Any
) -> list[TupleRow]:
    """Call a function with named arguments.

    Args:
        connection: A connection or a cursor, in the caller's transaction.
        function: Name with its schema, e.g. ``kpi.claim_kpi``.
        arguments: Values by the names of the function's parameters. Parameters that are left out have their defaults.

    Returns:
        The rows of the function. A scalar function returns one row with one column.

    Raises:
        psycopg.Error: The server refused the call, or the connection broke.
    """
    statement = sql.SQL("select * from {}({})").format(
        sql.Identifier(*function.split(".")),
        sql.SQL(", ").join(
            sql.SQL("{} => {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in arguments
        ),
    )
    return connection.execute(statement, arguments).fetchall()
