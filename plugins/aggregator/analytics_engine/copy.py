"""The answer of an Analytics Engine query as a temporary table of PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import sql

from aggregator.postgres.copy_format import NUL, format_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg
    from psycopg.rows import TupleRow

    from aggregator.analytics_engine.result import AnalyticsEngineResult

_COUNT_AND_FIRST = """
with given as (
{query}
)
select (select count(*) from given), given.* from given limit {limit}
"""

_ANSWER = sql.Identifier("pg_temp", "analytics_engine_answer")


def copy_answer(cursor: psycopg.Cursor[TupleRow], answer: AnalyticsEngineResult) -> int:
    """Load the rows of an answer into the temporary table ``pg_temp.analytics_engine_answer``, in constant memory.

    Args:
        cursor: In the transaction that has the table until its end.
        answer: With at least one column.

    Returns:
        How many rows it has.

    Raises:
        AggregatorError: The answer broke off, or holds what its types do not allow.
        psycopg.Error: PostgreSQL refused it.
    """
    types = [_postgres_type(column.type) for column in answer.columns]
    columns = [sql.Identifier(column.name) for column in answer.columns]
    definitions = [sql.SQL("{} {}").format(name, sql.SQL(type_)) for name, type_ in zip(columns, types, strict=True)]
    cursor.execute(
        sql.SQL("create temporary table analytics_engine_answer ({}) on commit drop").format(
            sql.SQL(", ").join(definitions)
        )
    )
    convert = [_without_nul if type_ == "text" else format_of(type_).convert for type_ in types]
    rows = 0
    with cursor.copy(sql.SQL("copy {} from stdin (format binary)").format(_ANSWER)) as copy:
        copy.set_types(types)
        for row in answer:
            copy.write_row([None if value is None else to(value) for to, value in zip(convert, row, strict=True)])
            rows += 1
    cursor.execute(sql.SQL("analyze {}").format(_ANSWER))
    return rows


def count_and_first(
    cursor: psycopg.Cursor[TupleRow], query: str, parameters: Mapping[str, Any], *, limit: int
) -> tuple[int, list[Any]]:
    """How many rows a query has, and the first column of the first ones.

    Args:
        cursor: In the transaction that has the temporary table.
        query: One SELECT.
        parameters: Values for its placeholders.
        limit: Rows whose first column is returned, at most.
    """
    statement = sql.SQL(_COUNT_AND_FIRST).format(query=sql.SQL(query), limit=sql.Literal(limit))
    rows = cursor.execute(statement, parameters).fetchall()
    return (rows[0][0] if rows else 0), [first for _, first, *_ in rows]


def _postgres_type(clickhouse_type: str) -> str:
    """The type of a temporary table's column that holds every value of a ClickHouse type."""
    name = clickhouse_type.removeprefix("LowCardinality(").removeprefix("Nullable(").rstrip(")").split("(")[0]
    narrow = {"Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32"}
    if name in narrow:
        return "int8"
    if name.startswith(("Int", "UInt", "Decimal")):
        return "numeric"
    return {"String": "text", "Float32": "float8", "Float64": "float8", "Date": "date", "Bool": "bool"}.get(
        name, "timestamptz"
    )


def _without_nul(value: Any) -> Any:
    # PostgreSQL has no text with NUL. Such a value equals none that is stored there, and so it does without it.
    return value.replace(NUL, "\N{REPLACEMENT CHARACTER}")
