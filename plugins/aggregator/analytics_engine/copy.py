"""The result of an Analytics Engine query as a temporary table of PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

if TYPE_CHECKING:
    import psycopg
    from psycopg.rows import TupleRow

    from aggregator.analytics_engine.result import AnalyticsEngineResult
    from aggregator.analytics_engine.types import Value

_NUL = "\x00"

_TABLE = sql.Identifier("pg_temp", "analytics_engine_answer")


def copy_result(cursor: psycopg.Cursor[TupleRow], result: AnalyticsEngineResult) -> int:
    """Load a result with columns into the temporary table ``pg_temp.analytics_engine_answer``, in constant memory.

    Returns:
        The number of rows. The table lasts until the end of the cursor's transaction.

    Raises:
        AggregatorError: The result is incomplete, or a value does not have its column's type.
        psycopg.Error: PostgreSQL refused the table or the rows.
    """
    types = [column.type.postgres for column in result.columns]
    columns = [
        sql.SQL("{} {}").format(sql.Identifier(column.name), sql.SQL(type_))
        for column, type_ in zip(result.columns, types, strict=True)
    ]
    definition = sql.SQL("create temporary table analytics_engine_answer ({}) on commit drop")
    cursor.execute(definition.format(sql.SQL(", ").join(columns)))
    rows = 0
    # psycopg does not check binary values. `ColumnType.read` has: each has exactly its column's type.
    with cursor.copy(sql.SQL("copy {} from stdin (format binary)").format(_TABLE)) as copy:
        copy.set_types(types)
        for row in result:
            copy.write_row(_storable(row))
            rows += 1
    cursor.execute(sql.SQL("analyze {}").format(_TABLE))
    return rows


def _storable(row: tuple[Value, ...]) -> list[Value]:
    # PostgreSQL stores no text with NUL, so the value matches no stored text, with or without the replacement.
    return [value.replace(_NUL, "\N{REPLACEMENT CHARACTER}") if isinstance(value, str) else value for value in row]
