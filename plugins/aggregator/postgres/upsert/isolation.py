"""Isolates groups of rows that cannot be computed or stored, so that the others are stored."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg import sql

from aggregator.core.errors import is_transient
from aggregator.postgres.upsert.spec import Query, Refusal, UpsertCounts, UpsertResult
from aggregator.postgres.upsert.staging import ORDINAL, read_only, select, staging
from aggregator.postgres.upsert.target import refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from psycopg.rows import TupleRow

    from aggregator.postgres.upsert.spec import Source, UpsertSpec

    Cursor = psycopg.Cursor[TupleRow]

Item = TypeVar("Item")
Items = TypeVar("Items")

_STATEMENT_ERRORS = ("25", "42")
"""Classes of SQLSTATEs that blame the transaction or the statement: every group would fail alike."""

_COMPUTED = "upsert_computed"
_ALL_COMPUTED = "select * from pg_temp.upsert_computed"

_CREATE_COMPUTED = """
create temporary table {table} on commit drop as
{query}
with no data
"""

_INSERT_COMPUTED = """
insert into {table}
{query}
"""

_NUMBERED = sql.Identifier("pg_temp", "upsert_numbered")
_GROUP = sql.Identifier("_group")

# With the types of the query: a value that its column cannot hold fails its group instead of the query.
_CREATE_NUMBERED = """
create temporary table upsert_numbered on commit drop as
select numbered.*, dense_rank() over (order by {by}) as {group} from (
    select source.*, row_number() over () as {ordinal} from pg_temp.upsert_computed as source
) as numbered
"""

_INSERT_GROUPS = """
insert into {stage} ({columns}, {ordinal})
select {columns}, {ordinal} from {numbered} where {group} between {first} and {last}
"""

_DESCRIBE_GROUP = "select {by}::text, count(*) from {numbered} where {group} = {number} group by {by}"


def upsert(cursor: Cursor, spec: UpsertSpec, source: Source, *, dry_run: bool = False) -> UpsertResult:
    """Upsert a source into a table, in one savepoint of the caller's transaction or in a transaction of its own.

    With ``isolate_by``, everything is written at once first. If that fails because of rows, :func:`compute` bisects the
    query to isolate the groups that cannot be computed. Then the computed rows are bisected to isolate the groups that
    a trigger, a constraint or a value refuses. A few bad groups among thousands cost a few dozen statements. Other
    errors, including transient ones, fail the whole upsert.

    Args:
        cursor: A cursor that returns tuples, at isolation level READ COMMITTED. With ``isolate_by``, deferred
            constraints become immediate until the end of the transaction.
        spec: The table and its key.
        source: A query or rows.
        dry_run: Compare and count, and write nothing. The source is read in a read-only transaction, and everything is
            rolled back. Triggers and constraints do not run. The role must be allowed to create temporary tables.

    Returns:
        The counts, the refused groups, and in a dry run the first changes.

    Raises:
        PermanentError: The table, its columns or its indexes do not allow the upsert, or a value does not fit its
            column, or a query writes in a dry run. Nothing was written.
        psycopg.Error: PostgreSQL refused a statement. The savepoint was rolled back.
    """
    if not isinstance(source, Query) or source.isolate_by is None:
        return _upsert_whole(cursor, spec, source, dry_run=dry_run)
    if source.isolate_by not in spec.key:
        key = ", ".join(spec.key)
        refuse(spec, f"rows can be isolated by a column of the key ({key}) only, not by {source.isolate_by}")
    with cursor.connection.transaction(force_rollback=dry_run):
        # A deferred constraint would fail at the commit, and with all groups.
        cursor.execute("set constraints all immediate")
        whole = Query(source.text, {**source.parameters, "groups": None})
        try:
            return _upsert_whole(cursor, spec, whole, dry_run=dry_run)
        except psycopg.Error as error:
            if not blames_rows(error):
                raise
        not_computed = compute(cursor, _COMPUTED, source.text, source.parameters, groups=source.groups, dry_run=dry_run)
        counts, not_stored = _store_by_group(cursor, spec, source.isolate_by, dry_run=dry_run)
        cursor.execute(sql.SQL("drop table {}").format(sql.Identifier("pg_temp", _COMPUTED)))
        return UpsertResult(counts, [*not_computed, *not_stored])


def compute(
    cursor: Cursor,
    table: str,
    query: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    groups: str | None = None,
    dry_run: bool = False,
) -> list[Refusal]:
    """Store the rows of a query in a new temporary table, except the groups of rows that cannot be computed.

    Everything is computed at once first. If a value prevents that (a sum that overflows, an object that is too large),
    the list of groups is bisected to isolate the groups that cannot be computed.

    Args:
        cursor: A cursor that returns tuples, in a transaction. The table is dropped at its end.
        table: Name of the temporary table.
        query: One SELECT. Its placeholder ``%(groups)s`` is an array of the groups to compute, or null for all. It must
            filter the rows that it reads by them, not the rows that it returns.
        parameters: Values for the other placeholders of ``query`` and ``groups``.
        groups: SELECT of all groups, one text a row, none of them null. Without it, nothing is bisected.
        dry_run: Make the server refuse every write of the queries.

    Returns:
        The groups that could not be computed, in the order of ``groups``.

    Raises:
        PermanentError: A query writes in a dry run.
        psycopg.Error: PostgreSQL refused a statement, or it refused rows and there are no groups.
    """
    given = dict(parameters or {})
    everything = {**given, "groups": None}
    insert = sql.SQL(_INSERT_COMPUTED).format(table=sql.Identifier("pg_temp", table), query=select(query))

    def fill(these: Sequence[str] | None) -> None:
        cursor.execute(insert, {**given, "groups": these})

    with cursor.connection.transaction():
        create = sql.SQL(_CREATE_COMPUTED).format(table=sql.Identifier(table), query=select(query))
        cursor.execute(create, everything)
        # After the table: a read-only transaction can fill a temporary table, but cannot create one.
        with read_only(cursor) if dry_run else nullcontext():
            error = _attempt(cursor, fill, None)
            if error is None:
                return []
            names = [name for (name,) in cursor.execute(sql.SQL(groups), given)] if groups else []
            if not names:
                raise error
            return [Refusal(name, None, reason) for name, reason in _bisect(cursor, names, fill, error)]


def blames_rows(error: psycopg.Error) -> bool:
    """Return whether PostgreSQL refused rows because of their values.

    Returns:
        False for transient errors, for errors of the statement or the transaction, and for errors of the client.
    """
    return not is_transient(error) and error.sqlstate is not None and not error.sqlstate.startswith(_STATEMENT_ERRORS)


def _upsert_whole(cursor: Cursor, spec: UpsertSpec, source: Source, *, dry_run: bool) -> UpsertResult:
    with staging(cursor, spec, dry_run=dry_run) as stage:
        if not dry_run:
            stage.load(source)
            return UpsertResult(stage.write())
        with read_only(cursor):
            stage.load(source)
            return UpsertResult(stage.count(), changes=stage.first_changes())


def _store_by_group(cursor: Cursor, spec: UpsertSpec, by: str, *, dry_run: bool) -> tuple[UpsertCounts, list[Refusal]]:
    """Upsert the computed rows, except the groups that PostgreSQL refuses."""
    stored: list[UpsertCounts] = []

    def execute(statement: str, **parts: sql.Composable) -> tuple[Any, ...]:
        names = {"numbered": _NUMBERED, "group": _GROUP, "by": sql.Identifier(by)}
        cursor.execute(sql.SQL(statement).format(**names, **parts))
        return (cursor.fetchone() or ()) if cursor.description else ()

    with staging(cursor, spec, dry_run=dry_run) as stage:
        stage.use_columns_of(Query(_ALL_COMPUTED))
        execute(_CREATE_NUMBERED, ordinal=ORDINAL)
        execute("create index on {numbered} ({group})")
        execute("analyze {numbered}")
        (groups,) = execute("select coalesce(max({group}), 0) from {numbered}")

        def store(numbers: Sequence[int]) -> None:
            first, last = sql.Literal(numbers[0]), sql.Literal(numbers[-1])
            stage.clear()
            stage.insert(_INSERT_GROUPS, numbered=_NUMBERED, group=_GROUP, first=first, last=last)
            stored.append(stage.count() if dry_run else stage.write())

        numbers = range(1, groups + 1)
        error = _attempt(cursor, store, numbers) if groups else None
        refused = []
        for number, reason in _bisect(cursor, numbers, store, error) if error else ():
            group, rows = execute(_DESCRIBE_GROUP, number=sql.Literal(number))
            refused.append(Refusal(group, rows, reason))
        execute("drop table {numbered}")
    return sum(stored, UpsertCounts()), refused


def _bisect(
    cursor: Cursor, items: Sequence[Item], work: Callable[[Sequence[Item]], None], error: psycopg.Error
) -> Iterator[tuple[Item, psycopg.Error]]:
    """Do the work for halves of the items, which failed together with an error, and yield each that fails alone."""
    if len(items) == 1:
        yield items[0], error
        return
    middle = len(items) // 2
    for half in (items[:middle], items[middle:]):
        if failure := _attempt(cursor, work, half):
            yield from _bisect(cursor, half, work, failure)


def _attempt(cursor: Cursor, work: Callable[[Items], None], items: Items) -> psycopg.Error | None:
    """Do work for items in a savepoint, and return the error if PostgreSQL refused its rows."""
    try:
        with cursor.connection.transaction():
            work(items)
    except psycopg.Error as error:
        if not blames_rows(error):
            raise
        return error
    return None
