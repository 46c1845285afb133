"""The staging table of an upsert: loads the source, drops duplicates, compares with the target and writes."""

from __future__ import annotations

import re
from contextlib import contextmanager
from itertools import chain, count
from typing import TYPE_CHECKING, Any, NoReturn

import psycopg
from psycopg import sql

from aggregator.core.errors import PermanentError
from aggregator.postgres.hook import describe
from aggregator.postgres.upsert.spec import Query, UpsertCounts
from aggregator.postgres.upsert.target import Target
from aggregator.postgres.values import CONVERTERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from psycopg.rows import TupleRow

    from aggregator.postgres.upsert.spec import Rows, Source, UpsertSpec
    from aggregator.postgres.upsert.target import Column

    Cursor = psycopg.Cursor[TupleRow]

PREVIEW_ROWS = 10
"""Rows that a dry run returns at most."""

ORDINAL = sql.Identifier("_ordinal")
"""Column of the staging table: the position of a row in the source."""

_STAGE = sql.Identifier("pg_temp", "upsert_stage")
_IS_NEW = sql.Identifier("_is_new")

_ATTEMPTS = 10
"""How often the rows are written at most. After the first time, each is due to a row of another transaction."""

_UNSENDABLE = (TypeError, ValueError, ArithmeticError, psycopg.DataError, psycopg.ProgrammingError)
"""What a converter or psycopg raises for a value that has no form for its column."""

_COPY_CONTEXT = re.compile(r"^COPY upsert_stage, \D*(?P<row>\d+)(?:, \w+ (?P<column>[^:]+))?", re.MULTILINE)
"""A line in the context of an error in COPY, in any language of the server."""

_CREATE = """
create temporary table upsert_stage on commit drop as
select {columns}, 0::bigint as {ordinal} from {table} with no data
"""

_INSERT_QUERY = """
insert into {stage} ({columns}, {ordinal})
select {columns}, row_number() over () from (
{query}
) as source
"""

# GROUP BY treats nulls as equal, and the join on the ordinal needs no sort whatever the types of the key. PostgreSQL
# evaluates the first condition once, and skips the join if there are no duplicates.
_DROP_DUPLICATES = """
delete from {stage} as staged
where exists (select from {stage} group by {key} having count(*) > 1) and not exists (
    select from (select max({ordinal}) as ordinal from {stage} group by {key}) as latest
    where latest.ordinal = staged.{ordinal}
)
"""

_CHANGES = """
from {stage} as staged left join {table} as stored on {match}
where stored.ctid is null or {differs}
"""

# For new rows, a plain INSERT takes two thirds of the time of one with ON CONFLICT. Both insert in the order of the
# key: two transactions lock the rows that they share in the same order, and cannot deadlock.
_WRITE = """
with changes as materialized (
    select {staged}, stored.ctid is null as {is_new} {changes}
),
added as (
    insert into {table} ({columns}{touched_columns})
    select {columns}{touched_values} from changes where {is_new} order by {key}
    returning 1
),
replaced as (
    insert into {table} as target ({columns}{touched_columns})
    select {columns}{touched_values} from changes where not {is_new} order by {key}
    on conflict ({key}) {action}
    returning 1
)
select (select count(*) from added), (select count(*) from replaced)
"""

_COUNT_CHANGES = """
select count(*) filter (where stored.ctid is null), count(*) filter (where stored.ctid is not null) {changes}
"""

_FIRST_CHANGES = """
select case when stored.ctid is null then 'insert' else 'update' end, {texts} {changes} order by {order} limit {limit}
"""


@contextmanager
def staging(cursor: Cursor, spec: UpsertSpec, *, dry_run: bool) -> Iterator[Stage]:
    """Create the staging table of an upsert in a savepoint, and drop it at the end; a dry run is rolled back."""
    with cursor.connection.transaction(force_rollback=dry_run):
        stage = Stage(cursor, Target.read(cursor, spec))
        yield stage
        if not dry_run:
            cursor.execute(sql.SQL("drop table {}").format(_STAGE))


@contextmanager
def read_only(cursor: Cursor) -> Iterator[None]:
    """Make the server refuse writes until the end of the savepoint, except to temporary tables that exist already."""
    cursor.execute("set transaction read only")
    try:
        yield
    except psycopg.errors.ReadOnlySqlTransaction:
        # Permanent: this SQLSTATE is transient only after a failover.
        msg = "25006 read_only_sql_transaction: a query of a dry run writes. Nothing was written. Correct the query."
        raise PermanentError(msg) from None


def select(query: str) -> sql.SQL:
    """Return a query without the semicolon at its end, to be used inside another statement."""
    return sql.SQL(query.rstrip().rstrip(";"))


class Stage:
    """A temporary table with the columns of the target, which all rows of a source pass through.

    Rows are compared with stored rows after the cast to the types of the target. The table also gives the planner
    statistics and makes rows countable.
    """

    def __init__(self, cursor: Cursor, target: Target) -> None:
        self._cursor = cursor
        self._target = target
        self._spec = target.spec
        self._columns: Sequence[str] = ()
        self._loaded = 0
        self._duplicates = 0
        self._execute(_CREATE, columns=identifiers(target.columns))

    def load(self, source: Source) -> None:
        """Load a source, and keep only the last of the rows with equal keys."""
        if isinstance(source, Query):
            self.use_columns_of(source)
            # psycopg looks for placeholders in the whole statement, including the names of columns.
            columns = identifiers(column.replace("%", "%%") for column in self._columns)
            self.insert(_INSERT_QUERY, source.parameters, columns=columns, query=select(source.text))
        else:
            self._copy(source)

    def use_columns_of(self, query: Query) -> None:
        """Take the columns that a query returns as those of the source."""
        statement = sql.SQL("select * from (\n{}\n) as source limit 0").format(select(query.text))
        described = self._cursor.execute(statement, query.parameters).description or ()
        self._use_columns([column.name for column in described])

    def insert(self, statement: str, parameters: Mapping[str, Any] | None = None, **parts: sql.Composable) -> None:
        """Load rows by an INSERT, a template with ``{stage}``, ``{columns}``, ``{ordinal}`` and other parts."""
        self._execute(statement, parameters, **{"columns": identifiers(self._columns), **parts})
        self._drop_duplicates(self._cursor.rowcount)

    def clear(self) -> None:
        """Empty the table. A new one for each attempt would keep its lock until the end of the transaction."""
        self._execute("truncate {stage}")

    def write(self) -> UpsertCounts:
        """Write the rows that differ from the stored rows.

        If a concurrent transaction stores one of the new keys, the next attempt compares with its row. A unique
        violation in all attempts is of another index.
        """
        for attempt in count(1):
            try:
                with self._cursor.connection.transaction():
                    self._execute(
                        _WRITE,
                        staged=identifiers(self._columns, "staged"),
                        is_new=_IS_NEW,
                        changes=self._changes,
                        columns=identifiers(self._columns),
                        touched_columns=_join("", ", {}", self._spec.touch),
                        touched_values=_join("", ", now()", self._spec.touch),
                        key=identifiers(self._spec.key),
                        action=self._on_conflict,
                    )
                    break
            except psycopg.errors.UniqueViolation:
                if attempt == _ATTEMPTS:
                    raise
        return self._counts()

    def count(self) -> UpsertCounts:
        """Return the counts that :meth:`write` would return."""
        self._execute(_COUNT_CHANGES, changes=self._changes)
        return self._counts()

    def first_changes(self) -> list[dict[str, Any]]:
        """Return the first rows that :meth:`write` would write, as :class:`UpsertResult` describes them."""
        self._execute(
            _FIRST_CHANGES,
            texts=_join(", ", "staged.{}::text", self._columns),
            changes=self._changes,
            order=identifiers(self._spec.key, "staged"),
            limit=sql.Literal(PREVIEW_ROWS),
        )
        return [
            {"action": action, "row": dict(zip(self._columns, values, strict=True))}
            for action, *values in self._cursor.fetchall()
        ]

    def _use_columns(self, columns: Sequence[str]) -> None:
        self._target.check_source(columns)
        self._columns = columns

    def _copy(self, rows: Rows) -> None:
        self._use_columns(rows.columns)
        columns = [self._target.columns[column] for column in rows.columns]
        types = [*(column.base_type for column in columns), "int8"]
        converters = [(index, convert) for index, name in enumerate(types[:-1]) if (convert := CONVERTERS.get(name))]
        binary = len(converters) == len(columns)
        statement = sql.SQL("copy {} ({}, {}) from stdin (format {})").format(
            _STAGE, identifiers(rows.columns), ORDINAL, sql.SQL("binary" if binary else "text")
        )
        loaded = 0
        try:
            with self._cursor.copy(statement) as copy:
                if binary:
                    # psycopg has no binary format of char(n), which is that of text.
                    copy.set_types(["text" if name == "bpchar" else name for name in types])
                for row in rows.values:
                    loaded += 1
                    if len(row) != len(columns):
                        self._refuse_row(loaded, f"it has {len(row)} values for {len(columns)} columns")
                    values = [*row, loaded]
                    try:
                        for index, convert in converters:
                            if values[index] is not None:
                                values[index] = convert(values[index])
                        copy.write_row(values)
                    except _UNSENDABLE:
                        self._refuse_row(loaded, self._problem(row, columns))
        except psycopg.DataError as error:
            where = _COPY_CONTEXT.search(error.diag.context or "")
            if where is None:
                raise
            column = self._target.columns.get(where["column"] or "")
            name = f"column {column.name} is {column.type_name}, which" if column else "its column"
            self._refuse_row(int(where["row"]), f"{name} cannot hold its value: {describe(error)}")
        self._drop_duplicates(loaded)

    def _problem(self, row: Sequence[Any], columns: Sequence[Column]) -> str:
        """Find the value that psycopg cannot send, and describe it without the value."""
        for column, value in zip(columns, row, strict=True):
            convert = CONVERTERS.get(column.base_type)
            try:
                sql.Literal(convert(value) if convert and value is not None else value).as_string(self._cursor)
            except _UNSENDABLE:
                return f"column {column.name} is {column.type_name}, which cannot hold this {type(value).__name__}"
        return "psycopg cannot send one of its values"

    def _refuse_row(self, row: int, problem: str) -> NoReturn:
        # From None: the text of the cause quotes the value, and the log would show it.
        msg = f"Row {row} for {self._spec.table} was refused: {problem}. Nothing was written. Correct the source."
        raise PermanentError(msg) from None

    def _drop_duplicates(self, loaded: int) -> None:
        self._loaded = loaded
        key = identifiers(self._spec.key)
        self._execute("analyze {stage} ({key}, {ordinal})", key=key)
        self._execute(_DROP_DUPLICATES, key=key)
        self._duplicates = self._cursor.rowcount

    def _counts(self) -> UpsertCounts:
        inserted, updated = self._cursor.fetchone() or (0, 0)
        unchanged = self._loaded - self._duplicates - inserted - updated
        return UpsertCounts(inserted, updated, unchanged, self._duplicates)

    @property
    def _compared(self) -> list[str]:
        return [column for column in self._columns if column not in self._spec.key]

    @property
    def _changes(self) -> sql.Composable:
        return sql.SQL(_CHANGES).format(
            stage=_STAGE,
            table=self._target.identifier,
            match=sql.SQL(" and ").join(map(self._match, self._spec.key)),
            differs=self._differ("stored", "staged"),
        )

    def _match(self, column: str) -> sql.Composable:
        # IS NOT DISTINCT FROM cannot use a hash join or an index.
        equal = "stored.{0} = staged.{0}"
        if not self._target.columns[column].not_null:
            equal = f"({equal} or (stored.{{0}} is null and staged.{{0}} is null))"
        return sql.SQL(equal).format(sql.Identifier(column))

    def _differ(self, old: str, new: str) -> sql.Composable:
        if not self._compared:
            return sql.SQL("false")
        return sql.SQL("({} is distinct from {})").format(self._row(old), self._row(new))

    def _row(self, alias: str) -> sql.Composable:
        values = (
            sql.Identifier(alias, column) + sql.SQL("::text" if self._target.columns[column].compared_as_text else "")
            for column in self._compared
        )
        return sql.SQL("row({})").format(sql.SQL(", ").join(values))

    @property
    def _on_conflict(self) -> sql.Composable:
        if not self._compared:
            return sql.SQL("do nothing")
        assignments = chain(
            (sql.SQL("{0} = excluded.{0}").format(sql.Identifier(column)) for column in self._compared),
            (sql.SQL("{} = now()").format(sql.Identifier(column)) for column in self._spec.touch),
        )
        # The condition is for rows that another transaction changed after this statement began.
        return sql.SQL("do update set {} where {}").format(
            sql.SQL(", ").join(assignments), self._differ("target", "excluded")
        )

    def _execute(self, statement: str, parameters: Mapping[str, Any] | None = None, **parts: sql.Composable) -> None:
        names = {"stage": _STAGE, "table": self._target.identifier, "ordinal": ORDINAL}
        self._cursor.execute(sql.SQL(statement).format(**names, **parts), parameters)


def identifiers(columns: Iterable[str], alias: str | None = None) -> sql.Composable:
    """Return names of columns as a list for a statement, each with the alias of its table."""
    names = (sql.Identifier(alias, column) if alias else sql.Identifier(column) for column in columns)
    return sql.SQL(", ").join(names)


def _join(separator: str, template: str, columns: Iterable[str]) -> sql.Composable:
    return sql.SQL(separator).join(sql.SQL(template).format(sql.Identifier(column)) for column in columns)
