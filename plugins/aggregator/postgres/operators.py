"""An operator that upserts rows from a query or from another task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, XComArg

from aggregator.core.data_interval import data_interval
from aggregator.core.errors import PermanentError
from aggregator.core.text import listed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow.sdk import Context
    from psycopg import Cursor
    from psycopg.rows import TupleRow
    from structlog.typing import FilteringBoundLogger

    from aggregator.postgres.upsert import Refusal, Rows, Source, UpsertCounts, UpsertResult

    Row = Mapping[str, Any] | Sequence[Any]

NAMED_AT_MOST = 20
"""Refused groups or skipped rows that a text names."""

LONGEST_NAME = 80
"""Characters of each name that it shows."""


def describe_refusal(refusal: Refusal) -> str:
    """Describe a refused group in one line: its name, its number of rows and the reason, without values of rows."""
    from aggregator.postgres.hook import describe

    # As a literal: a name comes from the source and may contain line breaks.
    name = "null" if refusal.group is None else repr(refusal.group[:LONGEST_NAME])
    what = "cannot be computed" if refusal.rows is None else f"{refusal.rows} rows"
    return f"{name} ({what}): {describe(refusal.error)}"


def refuse_incomplete(table: str, by: str, result: UpsertResult, *, dry_run: bool = False) -> None:
    """Fail the task if an upsert, isolated by a column, refused groups. Call it after the others are committed.

    Raises:
        PermanentError: At least one group was refused. The text names the first ones. A retry would fail alike until
            somebody fixes the cause.
    """
    if not result.refused:
        return
    named = listed(map(describe_refusal, result.refused), NAMED_AT_MOST, separator="; ")
    others = "Nothing was written in this dry run; all others would be stored" if dry_run else "All others are stored"
    raise PermanentError(
        f"PostgreSQL refused {len(result.refused)} of the groups of {table} by {by}: {named}. {others}: "
        f"{result.counts}. Fix the cause and clear the task."
    )


def is_suspicious(
    cursor: Cursor[TupleRow],
    stored: str,
    parameters: Mapping[str, Any],
    *,
    source: str,
    table: str,
    log: FilteringBoundLogger,
) -> bool:
    """Whether rows are stored for a window whose source is empty. If so, log a warning. The rows stay.

    ``stored`` is a SELECT of their number. ``source`` and ``table`` are names for the log.
    """
    (rows,) = cursor.execute(stored, parameters).fetchone() or (0,)
    if rows:
        log.warning(
            "SUSPICIOUS: the source is empty, but rows are stored for this window: source=%r table=%s stored=%d. "
            "Nothing was changed. If the source is correct, delete the rows by hand.",
            source,
            table,
            rows,
        )
    else:
        log.info("The source is empty, and no rows are stored for this window: source=%r table=%s", source, table)
    return bool(rows)


class SqlUpsertOperator(BaseOperator):
    """Upsert a query or rows into one table, in one transaction.

    Equal rows are neither rewritten nor locked, stored rows are never deleted, and values are never logged (spec:
    SqlUpsertOperator). Pass exactly one of ``sql`` and ``rows``. No DAG of this repository uses ``rows``; it is for
    your own (``docs/extend/write-a-dag.md``).

    Args:
        conn_id: Airflow connection of the database.
        table: ``schema.table``, exactly as in the catalog.
        key: The columns of a unique index of the table.
        sql: One SELECT, or a ``.sql`` file that contains it, whose columns are named like the table's. Its placeholders
            are bound, not rendered. ``%(data_interval_start)s`` and ``%(data_interval_end)s`` are always available; a
            literal ``%`` is written ``%%``.
        rows: Mappings from column to value, or sequences in the order of ``columns``; usually the output of another
            task. Not rendered as a template, and not shown in the UI.
        columns: The columns to take from ``rows``. Required for sequences. Mappings default to all columns of the first
            row, and then all rows must have the same columns.
        parameters: Values for further placeholders of ``sql``.
        stored: One SELECT, or a file that contains it, of the number of rows that the table has for the window. It runs
            if ``sql`` returns nothing. If there are such rows, the window is reported as suspicious and left unchanged.
        touch: Columns set to the transaction's time when a row is inserted or updated.
        isolate_by: A column of the key whose values divide the rows of ``sql`` into groups. A group that a trigger, a
            constraint or a value makes PostgreSQL refuse does not stop the others. They are stored and committed, and
            then the task fails with a permanent error that names the refused groups. A dry run does not run triggers
            and constraints.
        groups: SELECT of all groups, one text a row, or a file that contains it. With it, a group that ``sql`` cannot
            compute (a sum that overflows) does not stop the others either. ``sql`` must filter the rows that it reads
            by ``%(groups)s``, an array of groups, or null for all.
        dry_run: Write nothing, in a read-only transaction, and return what would be written.
        **kwargs: Arguments of every operator.
    """

    template_fields: Sequence[str] = ("conn_id", "table", "sql", "stored", "groups", "parameters")
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers = {  # noqa: RUF012 - declared so by Airflow
        **dict.fromkeys(("sql", "stored", "groups"), "postgresql"),
        "parameters": "json",
    }
    ui_color = "#e8f0e4"

    def __init__(  # noqa: PLR0913 - each is one independent choice, by keyword
        self,
        *,
        conn_id: str,
        table: str,
        key: Sequence[str],
        sql: str | None = None,
        rows: XComArg | Iterable[Row] | None = None,
        columns: Sequence[str] | None = None,
        parameters: Mapping[str, Any] | None = None,
        stored: str | None = None,
        touch: Sequence[str] = (),
        isolate_by: str | None = None,
        groups: str | None = None,
        dry_run: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if (sql is None) == (rows is None):
            raise ValueError(f"Task {self.task_id} needs exactly one of `sql` and `rows`.")
        if isolate_by is not None and (sql is None or isolate_by not in key):
            raise ValueError(f"Task {self.task_id} can isolate rows of `sql` only, and by a column of `key` only.")
        if groups is not None and isolate_by is None:
            raise ValueError(f"Task {self.task_id} has `groups` without a column to isolate them by. Add `isolate_by`.")
        self.conn_id = conn_id
        self.table = table
        self.key = key
        self.sql = sql
        self.rows = rows
        self.columns = columns
        self.parameters = parameters
        self.stored = stored
        self.touch = touch
        self.isolate_by = isolate_by
        self.groups = groups
        # BaseOperator has a method dry_run().
        self.is_dry_run = dry_run
        # Airflow finds the output of other tasks in template fields only.
        XComArg.apply_upstream_relationship(self, rows)

    def execute(self, context: Context) -> dict[str, Any]:
        """Upsert the rows, or return what an upsert would write.

        Returns:
            ``inserted``, ``updated``, ``unchanged`` and ``duplicates``. With ``stored``, also whether the window is
            ``suspicious``. In a dry run, also ``dry_run`` and ``preview``: the first rows that would be written, each
            with its ``action``.

        Raises:
            PermanentError: The rows, the query or the table do not allow the upsert. Nothing was written, or, with
                ``isolate_by``, everything except the groups that the text names.
            TransientError: The database was unreachable or busy. Nothing was written.
        """
        from aggregator.postgres.hook import PostgresTransactionHook
        from aggregator.postgres.upsert import UpsertSpec, upsert

        spec = UpsertSpec(self.table, self.key, self.touch)
        source, parameters = self._source(context)
        with PostgresTransactionHook(self.conn_id).task_transaction(context) as cursor:
            outcome = upsert(cursor, spec, source, dry_run=self.is_dry_run)
            suspicious = {} if outcome.refused else self._suspicious(cursor, parameters, outcome.counts)
        if self.isolate_by is not None:
            refuse_incomplete(self.table, self.isolate_by, outcome, dry_run=self.is_dry_run)
        state = "Dry run, nothing was written" if self.is_dry_run else "Upserted"
        self.log.info("%s: table=%s %s", state, self.table, outcome.counts)
        preview = {"preview": outcome.changes, "dry_run": True} if self.is_dry_run else {}
        return {**asdict(outcome.counts), **suspicious, **preview}

    def _source(self, context: Context) -> tuple[Source, Mapping[str, Any]]:
        """Return the source of the upsert and the parameters of its queries."""
        from aggregator.postgres.upsert import Query

        if self.sql is None:
            return self._rows(context), {}
        start, end = data_interval(context)
        parameters = {**(self.parameters or {}), "data_interval_start": start, "data_interval_end": end}
        return Query(self.sql, parameters, self.isolate_by, self.groups), parameters

    def _suspicious(
        self, cursor: Cursor[TupleRow], parameters: Mapping[str, Any], counts: UpsertCounts
    ) -> dict[str, bool]:
        if self.stored is None:
            return {}
        empty = not any(asdict(counts).values())
        return {
            "suspicious": empty
            and is_suspicious(cursor, self.stored, parameters, source="query", table=self.table, log=self.log)
        }

    def _rows(self, context: Context) -> Rows:
        from aggregator.postgres.upsert import Rows

        given = self.rows.resolve(context) if isinstance(self.rows, XComArg) else self.rows
        if given is None or isinstance(given, str | bytes | Mapping):
            raise PermanentError(
                f"The rows for {self.table} are a {type(given).__name__}, not a list of rows. Nothing was written. "
                "Correct the task that returns them."
            )
        rows = iter(given)
        first = next(rows, None)
        columns = list(first) if self.columns is None and isinstance(first, Mapping) else self.columns
        if first is None:
            return Rows(columns or self.key, ())
        if columns is None:
            raise PermanentError(
                f"The rows for {self.table} do not name their columns. Nothing was written. Add `columns` to the task."
            )
        return Rows(columns, (self._values(row, number, columns) for number, row in enumerate(chain([first], rows), 1)))

    def _values(self, row: object, number: int, columns: Sequence[str]) -> Sequence[Any]:
        if isinstance(row, Mapping):
            if missing := [column for column in columns if column not in row]:
                raise PermanentError(f"Row {number} for {self.table} has no {', '.join(missing)}. Nothing was written.")
            if self.columns is None and len(row) > len(columns):
                raise PermanentError(
                    f"Row {number} for {self.table} has columns that the first row does not have. Nothing was written."
                )
            return [row[column] for column in columns]
        if isinstance(row, Sequence) and not isinstance(row, str | bytes):
            return row
        kind = type(row).__name__
        msg = f"Row {number} for {self.table} is a {kind}, neither a mapping nor a sequence. Nothing was written."
        raise PermanentError(msg)
