"""Upsert in one transaction: equal rows are neither rewritten nor locked, and every row given is accounted for."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import astuple, dataclass, field
from functools import cached_property
from itertools import chain, count
from typing import TYPE_CHECKING, Any, NoReturn

import psycopg
from more_itertools import chunked
from psycopg import sql

from aggregator.core.errors import PermanentError, is_transient
from aggregator.postgres.copy_format import NUL, Format, format_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from psycopg.rows import TupleRow

    Cursor = psycopg.Cursor[TupleRow]

PREVIEW_ROWS = 10
"""Rows that a preview shows unless told otherwise."""

_STAGE = sql.Identifier("pg_temp", "upsert_stage")
_SOURCE = sql.Identifier("pg_temp", "upsert_source")
_ORDINAL = "_ordinal"
_GROUP = "_group"
_IS_NEW = "_is_new"

_COMPUTED = "upsert_computed"
_ALL_COMPUTED = "select * from pg_temp.upsert_computed"

_NOT_THE_ROWS = ("25", "42")
"""Classes of the SQLSTATEs that blame the transaction or the statement: every group would be refused alike."""

_CHUNK = 1000
"""Rows that are converted together, and held in memory."""

_ATTEMPTS = 10
"""Each but the first is due to another transaction that stored a row with a new key meanwhile."""

_COLUMNS = """
with recursive base (attnum, oid) as (
    select attnum, atttypid from pg_attribute where attrelid = %(table)s and attnum > 0 and not attisdropped
    union all
    select base.attnum, pg_type.typbasetype from base join pg_type using (oid) where pg_type.typtype = 'd'
)
select
    attribute.attname,
    case
        when type.typtype = 'e' then 'enum'
        when type.typnamespace = 'pg_catalog'::regnamespace then type.typname
        else ''
    end,
    format_type(attribute.atttypid, attribute.atttypmod),
    attribute.attnotnull,
    attribute.attgenerated = '' and attribute.attidentity <> 'a',
    coalesce(element.typname, type.typname) in ('json', 'xml') or coalesce(element.typcategory, type.typcategory) = 'G'
from base
join pg_type as type using (oid)
left join pg_type as element on element.oid = type.typelem and type.typcategory = 'A'
join pg_attribute as attribute on attribute.attrelid = %(table)s and attribute.attnum = base.attnum
where type.typtype <> 'd'
order by attribute.attnum
"""

# Only an immediate, whole, plain index can be inferred by ON CONFLICT (columns).
_UNIQUE_INDEXES = """
select indnullsnotdistinct
from pg_index
where indrelid = %(table)s and indisunique and indisvalid and indimmediate and indpred is null and indexprs is null
    and %(key)s::text[] = array(
        select attribute.attname::text collate "C"
        from unnest(indkey) with ordinality as part (attnum, position)
        join pg_attribute as attribute on attribute.attrelid = indrelid and attribute.attnum = part.attnum
        where part.position <= indnkeyatts
        order by 1
    )
"""

_CREATE_STAGE = """
create temporary table upsert_stage on commit drop as
select {columns}, 0::bigint as {ordinal} from {table} with no data
"""

_STAGE_SELECT = """
insert into {stage} ({columns}, {ordinal})
select {columns}, row_number() over () from (
{query}
) as source
"""

_CREATE_COMPUTED = """
create temporary table {table} on commit drop as
{query}
with no data
"""

_COMPUTE = """
insert into {table}
{query}
"""

# With the query's own types: a value that its column cannot hold is refused with its group, not with the query.
_CREATE_SOURCE = """
create temporary table upsert_source on commit drop as
select numbered.*, dense_rank() over (order by {by}) as {group} from (
    select source.*, row_number() over () as {ordinal} from (
{query}
    ) as source
) as numbered
"""

_STAGE_GROUPS = """
insert into {stage} ({columns}, {ordinal})
select {columns}, {ordinal} from {source} where {group} between {first} and {last}
"""

_NAME_GROUP = "select {by}::text, count(*) from {source} where {group} = {number} group by {by}"

# Aggregating by key treats nulls as equal, and the join is on the ordinal: no sort, whatever the key's types. The first
# condition is asked once, and saves the join where there is nothing to drop.
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

# A plain INSERT for new rows takes two thirds of the time of one that is ready for conflicts. Both are in the order of
# the key, so that two transactions meet the rows they share in the same order, and cannot deadlock.
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

_SHOW_CHANGES = """
select case when stored.ctid is null then 'insert' else 'update' end, {texts} {changes} order by {order} limit {limit}
"""


@dataclass(frozen=True)
class UpsertCounts:
    """What became of the rows given; the four add up to their number.

    Attributes:
        inserted: Rows with a new key.
        updated: Rows that replaced a different stored row.
        unchanged: Rows that were stored already, exactly so.
        duplicates: Rows left out because a later row had the same key.
    """

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    duplicates: int = 0

    def __add__(self, other: UpsertCounts) -> UpsertCounts:
        """The counts of both upserts together."""
        return UpsertCounts(*map(sum, zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class Refusal:
    """A group of rows that PostgreSQL could not compute or refused to store.

    Attributes:
        group: Value of the column that the rows were isolated by, as PostgreSQL prints it; None for null.
        rows: How many rows it has; None if the query could not compute them.
        error: Why. Its texts may quote values of rows.
    """

    group: str | None
    rows: int | None
    error: psycopg.Error


@dataclass(frozen=True)
class IsolatedUpsert:
    """The outcome of an upsert, group by group.

    Attributes:
        counts: Counts of the stored groups. With the rows of the refused ones they add up to the rows given.
        refused: The other groups: first those that could not be computed, then those that could not be stored.
        changes: As `Preview` has them, in a dry run that refuses nothing.
    """

    counts: UpsertCounts
    refused: list[Refusal] = field(default_factory=list)
    changes: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Preview:
    """What an upsert would do.

    Attributes:
        counts: The counts that the upsert would return.
        changes: The first rows that it would write, in the order of the key: ``action`` (``insert`` or ``update``) and
            ``row``, the given columns with their values as PostgreSQL prints them, or None.
    """

    counts: UpsertCounts
    changes: list[dict[str, Any]]


@dataclass(frozen=True)
class Upsert:
    """An upsert into one table (spec: SqlUpsertOperator).

    All names are exact: nothing is quoted or folded to lower case here. Columns that are neither given nor named below
    keep their values, or get their defaults in new rows. Each method is one savepoint of the caller's transaction, or a
    transaction of its own where none is open; its isolation level has to be READ COMMITTED, PostgreSQL's default.

    Attributes:
        table: ``schema.table``; partitioned or not.
        key: The columns of a unique index. If one of them can be null, the index has to be ``NULLS NOT DISTINCT``.
        preserve: Given columns that are stored with a new row and then stay, whatever is given (``created_at``).
        touch: Columns set to the transaction's time when a row is inserted or really changes (``updated_at``).
    """

    table: str
    key: Sequence[str]
    preserve: Sequence[str] = ()
    touch: Sequence[str] = ()

    def from_select(self, cursor: Cursor, query: str, parameters: Mapping[str, Any] | None = None) -> UpsertCounts:
        """Upsert what a query returns.

        Args:
            cursor: An open cursor that returns tuples.
            query: One SELECT whose columns are named as the table's. Of rows with equal keys the last one wins.
            parameters: Values for its ``%(name)s`` placeholders; a literal ``%`` is written ``%%``.

        Returns:
            What became of the rows.

        Raises:
            PermanentError: The table, its columns or its indexes do not allow this; nothing was written.
            psycopg.Error: PostgreSQL refused a statement; the savepoint was rolled back.
        """
        with self._stage(cursor) as stage:
            stage.load_select(query, parameters)
            return stage.write()

    def from_rows(self, cursor: Cursor, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> UpsertCounts:
        """Upsert rows, read once and in constant memory, through COPY.

        Values are converted to the type of their column where nothing is lost: ISO 8601 strings to dates, timestamps
        (naive ones are UTC) and UUIDs, numbers and strings to numeric, dicts and lists to JSON.

        Args:
            cursor: An open cursor that returns tuples; ``rows`` must not use its connection meanwhile.
            columns: The column of each value.
            rows: The values of each row. Of rows with equal keys the last one wins.

        Returns:
            What became of the rows.

        Raises:
            PermanentError: As for :meth:`from_select`; or a value does not fit its column.
            psycopg.Error: PostgreSQL refused a statement; the savepoint was rolled back.
        """
        with self._stage(cursor) as stage:
            stage.load_rows(columns, rows)
            return stage.write()

    def isolated_select(
        self,
        cursor: Cursor,
        query: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        by: str,
        groups: str | None = None,
        dry_run: bool = False,
    ) -> IsolatedUpsert:
        """Upsert what a query returns, except the groups of rows that cannot be computed or stored.

        Everything is computed and written at once. If that fails because of rows, :func:`compute` bisects the query to
        isolate the groups that cannot be computed. Then the computed rows are bisected to isolate the groups that a
        trigger, a constraint or a value refuses. A few bad groups among thousands cost a few dozen statements. What
        fails for another reason, a transient one included, fails whole.

        Args:
            cursor: As for :meth:`from_select`. Deferred constraints are checked at once from now on.
            query: As for :meth:`from_select`; its result must not change while it is asked again.
            parameters: As for :meth:`from_select`.
            by: Column of the key whose values are the groups.
            groups: As for :func:`compute`; without it, a query that cannot be computed fails whole.
            dry_run: Compute and compare everything, and write nothing. The query runs read-only, and what follows is
                rolled back. Triggers and constraints are not asked.

        Returns:
            The counts, and which groups were refused.

        Raises:
            PermanentError: As for :meth:`from_select`; or ``by`` is not part of the key.
            psycopg.Error: PostgreSQL refused a statement, not its rows; the savepoint was rolled back.
        """
        if by not in self.key:
            _refuse(self, f"rows are isolated by a column of the key {_names(self.key)}, and {by} is none")
        with cursor.connection.transaction(force_rollback=dry_run):
            # Left to the commit, a deferred constraint would refuse every group.
            cursor.execute("set constraints all immediate")
            everything = {**(parameters or {}), "groups": None}
            try:
                if dry_run:
                    preview = self.preview_select(cursor, query, everything)
                    return IsolatedUpsert(preview.counts, changes=preview.changes)
                return IsolatedUpsert(self.from_select(cursor, query, everything))
            except psycopg.Error as error:
                if not blames_rows(error):
                    raise
            not_computed = compute(cursor, _COMPUTED, query, parameters, groups=groups, read_only=dry_run)
            with self._stage(cursor, rollback=dry_run) as stage:
                outcome = stage.isolate(_ALL_COMPUTED, by, dry_run=dry_run)
            cursor.execute(sql.SQL("drop table {}").format(sql.Identifier("pg_temp", _COMPUTED)))
            return IsolatedUpsert(outcome.counts, [*not_computed, *outcome.refused])

    def preview_select(
        self, cursor: Cursor, query: str, parameters: Mapping[str, Any] | None = None, *, limit: int = PREVIEW_ROWS
    ) -> Preview:
        """What :meth:`from_select` would do.

        The query and all that follows run read-only, as the server enforces; the staging table is rolled back.

        Args:
            cursor: As for :meth:`from_select`, in a transaction that may create temporary tables.
            query: As for :meth:`from_select`.
            parameters: As for :meth:`from_select`.
            limit: Rows to show at most.

        Returns:
            The same counts, and the first rows that would be written.

        Raises:
            PermanentError: As for :meth:`from_select`; or the query writes.
            psycopg.Error: PostgreSQL refused a statement.
        """
        with self._stage(cursor, rollback=True) as stage, _read_only(cursor):
            stage.load_select(query, parameters)
            return stage.preview(limit)

    def preview_rows(
        self, cursor: Cursor, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, limit: int = PREVIEW_ROWS
    ) -> Preview:
        """What :meth:`from_rows` would do, read-only like :meth:`preview_select`.

        Args:
            cursor: As for :meth:`from_rows`, in a transaction that may create temporary tables.
            columns: As for :meth:`from_rows`.
            rows: As for :meth:`from_rows`.
            limit: Rows to show at most.

        Returns:
            The same counts, and the first rows that would be written.

        Raises:
            PermanentError: As for :meth:`from_rows`.
            psycopg.Error: PostgreSQL refused a statement.
        """
        with self._stage(cursor, rollback=True) as stage, _read_only(cursor):
            stage.load_rows(columns, rows)
            return stage.preview(limit)

    @contextmanager
    def _stage(self, cursor: Cursor, *, rollback: bool = False) -> Iterator[_Stage]:
        with cursor.connection.transaction(force_rollback=rollback):
            target = _Target.read(cursor, self)
            stage = _Stage(self, target, cursor)
            stage.create()
            yield stage
            if not rollback:
                cursor.execute(sql.SQL("drop table {}").format(_STAGE))


@dataclass(frozen=True)
class _Column:
    name: str
    base_type: str
    type_name: str
    not_null: bool
    writable: bool
    compared_as_text: bool

    @cached_property
    def format(self) -> Format:
        return format_of(self.base_type)


@dataclass(frozen=True)
class _Target:
    identifier: sql.Identifier
    columns: Mapping[str, _Column]

    @classmethod
    def read(cls, cursor: Cursor, upsert: Upsert) -> _Target:
        """Look the table up in the catalog, and refuse what the upsert cannot be done with."""
        schema, _, name = upsert.table.partition(".")
        found = cursor.execute(
            "select c.oid from pg_class as c join pg_namespace as n on n.oid = c.relnamespace "
            "where n.nspname = %s and c.relname = %s and c.relkind in ('r', 'p')",
            [schema, name],
        ).fetchone()
        if found is None:
            _refuse(upsert, "there is no such table; it is named as schema.table, exactly as the catalog has it")
        (oid,) = found
        columns = {row[0]: _Column(*row) for row in cursor.execute(_COLUMNS, {"table": oid})}
        target = cls(sql.Identifier(schema, name), columns)
        target.check(upsert)
        indexes = cursor.execute(_UNIQUE_INDEXES, {"table": oid, "key": sorted(upsert.key)}).fetchall()
        if not indexes:
            _refuse(upsert, f"no unique index (immediate, not partial) covers exactly the key {_names(upsert.key)}")
        if not any(nulls_not_distinct for (nulls_not_distinct,) in indexes):
            nullable = [column for column in upsert.key if not columns[column].not_null]
            if nullable:
                _refuse(
                    upsert,
                    f"key column {_names(nullable)} can be null, so every run would insert such rows again; "
                    "make it NOT NULL, or the unique index NULLS NOT DISTINCT",
                )
        return target

    def check(self, upsert: Upsert) -> None:
        roles = [*upsert.key, *upsert.preserve, *upsert.touch]
        if not upsert.key:
            _refuse(upsert, "the key has no columns")
        if len(set(roles)) < len(roles):
            _refuse(upsert, "a column is named twice among key, preserve and touch")
        self.check_writable(upsert, roles)

    def check_writable(self, upsert: Upsert, columns: Collection[str]) -> None:
        if unknown := [column for column in columns if column not in self.columns]:
            _refuse(upsert, f"it has no column {_names(unknown)}; it has {_names(self.columns)}")
        if generated := [column for column in columns if not self.columns[column].writable]:
            _refuse(upsert, f"column {_names(generated)} is generated by PostgreSQL and cannot be given")

    def check_given(self, upsert: Upsert, columns: Sequence[str]) -> None:
        self.check_writable(upsert, columns)
        if len(set(columns)) < len(columns):
            _refuse(upsert, f"a column is given twice: {_names(columns)}")
        if missing := [column for column in upsert.key if column not in columns]:
            _refuse(upsert, f"key column {_names(missing)} is not given")
        if touched := [column for column in upsert.touch if column in columns]:
            _refuse(upsert, f"column {_names(touched)} is set by the upsert and cannot be given as well")


class _Stage:
    """The temporary table that the given rows pass through, with the target's column types.

    So they are compared after the cast to those types, can be counted, and give the planner statistics.
    """

    def __init__(self, upsert: Upsert, target: _Target, cursor: Cursor) -> None:
        self._upsert = upsert
        self._target = target
        self._cursor = cursor
        self._columns: Sequence[str] = ()
        self._given = 0
        self._duplicates = 0

    def create(self) -> None:
        self._execute(_CREATE_STAGE, columns=_list(self._target.columns))

    def load_select(self, query: str, parameters: Mapping[str, Any] | None) -> None:
        source = self._describe(query, parameters)
        # psycopg reads placeholders in the whole statement, so in the names of columns too.
        names = _list(column.replace("%", "%%") for column in self._columns)
        self._execute(_STAGE_SELECT, parameters or {}, columns=names, query=source)
        self._loaded(self._cursor.rowcount)

    def _describe(self, query: str, parameters: Mapping[str, Any] | None) -> sql.SQL:
        source = _statement(query)
        described = self._cursor.execute(
            sql.SQL("select * from (\n{}\n) as source limit 0").format(source), parameters or {}
        )
        columns = [column.name for column in described.description or ()]
        self._target.check_given(self._upsert, columns)
        self._columns = columns
        return source

    def isolate(self, query: str, by: str, *, dry_run: bool) -> IsolatedUpsert:
        source = self._describe(query, None)
        self._execute(_CREATE_SOURCE, by=sql.Identifier(by), query=source)
        self._execute("create index on {source} ({group})")
        self._execute("analyze {source}")
        self._execute("select coalesce(max({group}), 0) from {source}")
        (groups,) = self._cursor.fetchone() or (0,)
        finish = self.count if dry_run else self.write
        result = self._finish_groups(1, groups, by, finish) if groups else IsolatedUpsert(UpsertCounts())
        self._execute("drop table {source}")
        return result

    def _finish_groups(self, first: int, last: int, by: str, finish: Callable[[], UpsertCounts]) -> IsolatedUpsert:
        try:
            with self._cursor.connection.transaction():
                # Not a table of its own for each try: their locks would stay until the end of the transaction.
                self._execute("truncate {stage}")
                self._execute(
                    _STAGE_GROUPS, columns=_list(self._columns), first=sql.Literal(first), last=sql.Literal(last)
                )
                self._loaded(self._cursor.rowcount)
                return IsolatedUpsert(finish())
        except psycopg.Error as error:
            if not blames_rows(error):
                raise
            refused = error
        if first < last:
            middle = (first + last) // 2
            below = self._finish_groups(first, middle, by, finish)
            above = self._finish_groups(middle + 1, last, by, finish)
            return IsolatedUpsert(below.counts + above.counts, below.refused + above.refused)
        self._execute(_NAME_GROUP, by=sql.Identifier(by), number=sql.Literal(first))
        name, count_ = self._cursor.fetchone() or (None, 0)
        return IsolatedUpsert(UpsertCounts(), [Refusal(name, count_, refused)])

    def load_rows(self, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        self._target.check_given(self._upsert, columns)
        self._columns = columns
        targets = [self._target.columns[column] for column in columns]
        binary_types = [column.format.binary_type for column in targets]
        binary = None not in binary_types
        statement = sql.SQL("copy {} ({}, {}) from stdin (format {})").format(
            _STAGE, _list(columns), sql.Identifier(_ORDINAL), sql.SQL("binary" if binary else "text")
        )
        given = 0
        with self._cursor.copy(statement) as copy:
            if binary:
                copy.set_types([*filter(None, binary_types), "int8"])
            for chunk in chunked(rows, _CHUNK):
                ordinals = range(given + 1, given + 1 + len(chunk))
                try:
                    values = [
                        column.format.convert_all(values)
                        for column, values in zip(targets, zip(*chunk, strict=True), strict=True)
                    ]
                    for row in zip(*values, ordinals, strict=True):
                        copy.write_row(row)
                except (TypeError, ValueError, ArithmeticError, psycopg.DataError, psycopg.ProgrammingError) as error:
                    self._refuse(chunk, ordinals, targets, error)
                given += len(chunk)
        self._loaded(given)

    def _refuse(
        self, rows: Sequence[Sequence[Any]], ordinals: range, columns: Sequence[_Column], error: Exception
    ) -> NoReturn:
        where, problem = (
            f"{ordinals[0]} to {ordinals[-1]}",
            f"psycopg cannot write one of them ({type(error).__name__})",
        )
        for ordinal, row in zip(ordinals, rows, strict=True):
            if found := _problem(row, columns):
                where, problem = str(ordinal), found
                break
        # From None, and without the value: the exception and what led to it end up in the log.
        msg = f"Row {where} for {self._upsert.table} was refused: {problem}. Nothing was written; mend its source."
        raise PermanentError(msg) from None

    def _loaded(self, given: int) -> None:
        self._given = given
        key = _list(self._upsert.key)
        self._execute("analyze {stage} ({key}, {ordinal})", key=key)
        self._execute(_DROP_DUPLICATES, key=key)
        self._duplicates = self._cursor.rowcount

    def write(self) -> UpsertCounts:
        for attempt in count(1):
            try:
                with self._cursor.connection.transaction():
                    self._execute(
                        _WRITE,
                        staged=_list(self._columns, "staged"),
                        is_new=sql.Identifier(_IS_NEW),
                        changes=self._changes,
                        columns=_list(self._columns),
                        touched_columns=_each(", {}", self._upsert.touch),
                        touched_values=_each(", now()", self._upsert.touch),
                        key=_list(self._upsert.key),
                        action=self._on_conflict,
                    )
                    break
            except psycopg.errors.UniqueViolation:
                # Seen from now, that row is one to compare with; or the violation is of another index, and stays.
                if attempt == _ATTEMPTS:
                    raise
        return self._counts()

    def count(self) -> UpsertCounts:
        self._execute(_COUNT_CHANGES, changes=self._changes)
        return self._counts()

    def preview(self, limit: int) -> Preview:
        counts = self.count()
        self._execute(
            _SHOW_CHANGES,
            texts=_each("staged.{}::text", self._columns, ", "),
            changes=self._changes,
            order=_list(self._upsert.key, "staged"),
            limit=sql.Literal(limit),
        )
        changes = [
            {"action": action, "row": dict(zip(self._columns, values, strict=True))}
            for action, *values in self._cursor.fetchall()
        ]
        return Preview(counts, changes)

    def _counts(self) -> UpsertCounts:
        inserted, updated = self._cursor.fetchone() or (0, 0)
        unchanged = self._given - self._duplicates - inserted - updated
        return UpsertCounts(inserted, updated, unchanged, self._duplicates)

    @property
    def _compared(self) -> list[str]:
        kept = {*self._upsert.key, *self._upsert.preserve}
        return [column for column in self._columns if column not in kept]

    @property
    def _changes(self) -> sql.Composable:
        return sql.SQL(_CHANGES).format(
            stage=_STAGE,
            table=self._target.identifier,
            match=sql.SQL(" and ").join(map(self._match, self._upsert.key)),
            differs=self._differ("stored", "staged"),
        )

    def _match(self, column: str) -> sql.Composable:
        # Not IS NOT DISTINCT FROM: neither a hash nor an index serves that.
        equal = "stored.{0} = staged.{0}"
        if not self._target.columns[column].not_null:
            equal = f"({equal} or (stored.{{0}} is null and staged.{{0}} is null))"
        return sql.SQL(equal).format(sql.Identifier(column))

    def _differ(self, old: str, new: str) -> sql.Composable:
        if not self._compared:
            return sql.SQL("false")
        return sql.SQL("({} is distinct from {})").format(self._row(old), self._row(new))

    def _row(self, alias: str) -> sql.Composable:
        # Some types have no equality, and that of some geometric ones compares their areas.
        return sql.SQL("row({})").format(
            sql.SQL(", ").join(
                sql.Identifier(alias, column)
                + sql.SQL("::text" if self._target.columns[column].compared_as_text else "")
                for column in self._compared
            )
        )

    @property
    def _on_conflict(self) -> sql.Composable:
        if not self._compared:
            return sql.SQL("do nothing")
        assignments = chain(
            (sql.SQL("{0} = excluded.{0}").format(sql.Identifier(column)) for column in self._compared),
            (sql.SQL("{} = now()").format(sql.Identifier(column)) for column in self._upsert.touch),
        )
        # Decides for rows that another transaction has changed since this statement began.
        return sql.SQL("do update set {} where {}").format(
            sql.SQL(", ").join(assignments), self._differ("target", "excluded")
        )

    def _execute(self, statement: str, parameters: Mapping[str, Any] | None = None, **parts: sql.Composable) -> None:
        names: dict[str, sql.Composable] = {
            "stage": _STAGE,
            "table": self._target.identifier,
            "ordinal": sql.Identifier(_ORDINAL),
            "source": _SOURCE,
            "group": sql.Identifier(_GROUP),
        }
        self._cursor.execute(sql.SQL(statement).format(**names, **parts), parameters)


def compute(
    cursor: Cursor,
    table: str,
    query: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    groups: str | None = None,
    read_only: bool = False,
) -> list[Refusal]:
    """Store what a query returns in a new temporary table, except the groups of rows that cannot be computed.

    Everything is computed at once. If a value makes that impossible (a sum that overflows, an object that is too
    large), the list of groups is bisected until the groups that cannot be computed are isolated.

    Args:
        cursor: An open cursor that returns tuples, in a transaction; the table is dropped at its end.
        table: Name of the temporary table.
        query: One SELECT. It takes its groups from the placeholder ``%(groups)s``: an array of those to compute, or
            null for all. It has to filter the rows that it reads, not the ones that it returns.
        parameters: Values for the other placeholders of ``query`` and ``groups``.
        groups: SELECT of all groups, one text each, none of them null; without it, nothing is bisected.
        read_only: Let the server refuse every write of the queries.

    Returns:
        The groups that could not be computed, in the order of ``groups``.

    Raises:
        psycopg.Error: PostgreSQL refused a statement, not its rows; or it blamed rows and there are no groups.
    """
    into, given = sql.Identifier("pg_temp", table), dict(parameters or {})
    with cursor.connection.transaction():
        create = sql.SQL(_CREATE_COMPUTED).format(table=sql.Identifier(table), query=_statement(query))
        cursor.execute(create, {**given, "groups": None})
        # Only now: a read-only transaction may fill a temporary table, but not create one.
        with _read_only(cursor) if read_only else nullcontext():
            fill = sql.SQL(_COMPUTE).format(table=into, query=_statement(query))
            error = _try_to_compute(cursor, fill, {**given, "groups": None})
            if error is None:
                return []
            names = [name for (name,) in cursor.execute(sql.SQL(groups), given)] if groups else []
            if not names:
                raise error
            return _bisect(cursor, fill, given, names, error)


@contextmanager
def _read_only(cursor: Cursor) -> Iterator[None]:
    """Let the server refuse every write but those to temporary tables that exist already."""
    cursor.execute("set transaction read only")
    try:
        yield
    except psycopg.errors.ReadOnlySqlTransaction:
        # Not transient, as it is after a failover: the transaction asked for it.
        msg = "25006 read_only_sql_transaction: a query of a dry run writes. Nothing was written. Correct the query."
        raise PermanentError(msg) from None


def _bisect(
    cursor: Cursor, fill: sql.Composed, parameters: Mapping[str, Any], groups: list[str], error: psycopg.Error
) -> list[Refusal]:
    if len(groups) == 1:
        return [Refusal(groups[0], None, error)]
    middle = len(groups) // 2
    refused = []
    for half in (groups[:middle], groups[middle:]):
        if failure := _try_to_compute(cursor, fill, {**parameters, "groups": half}):
            refused += _bisect(cursor, fill, parameters, half, failure)
    return refused


def _try_to_compute(cursor: Cursor, fill: sql.Composed, parameters: Mapping[str, Any]) -> psycopg.Error | None:
    try:
        with cursor.connection.transaction():
            cursor.execute(fill, parameters)
    except psycopg.Error as error:
        if not blames_rows(error):
            raise
        return error
    return None


def blames_rows(error: psycopg.Error) -> bool:
    """Whether PostgreSQL refused rows for what they hold: neither the statement is wrong, nor may another try succeed.

    Args:
        error: What PostgreSQL answered.
    """
    return not is_transient(error) and error.sqlstate is not None and not error.sqlstate.startswith(_NOT_THE_ROWS)


def _problem(row: Sequence[Any], columns: Sequence[_Column]) -> str | None:
    """Why the row does not fit, without its values."""
    if len(row) != len(columns):
        return f"it has {len(row)} values for {len(columns)} columns"
    for column, value in zip(columns, row, strict=True):
        try:
            column.format.convert_all([value])
        except (TypeError, ValueError, ArithmeticError):
            nul = ": it contains a NUL character" if isinstance(value, str) and NUL in value else ""
            return f"column {column.name} is {column.type_name}, which cannot hold this {type(value).__name__}{nul}"
    return None


def _list(columns: Iterable[str], alias: str | None = None) -> sql.Composable:
    names = (sql.Identifier(alias, column) if alias else sql.Identifier(column) for column in columns)
    return sql.SQL(", ").join(names)


def _each(template: str, columns: Iterable[str], separator: str = "") -> sql.Composable:
    return sql.SQL(separator).join(sql.SQL(template).format(sql.Identifier(column)) for column in columns)


def _statement(query: str) -> sql.SQL:
    return sql.SQL(query.rstrip().rstrip(";"))


def _names(columns: Iterable[str]) -> str:
    return ", ".join(columns)


def _refuse(upsert: Upsert, reason: str) -> NoReturn:
    msg = f"Cannot upsert into {upsert.table}: {reason}. Nothing was written."
    raise PermanentError(msg)
