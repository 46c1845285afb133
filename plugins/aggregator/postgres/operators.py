"""Upsert rows from a query or from another task, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, XComArg

from aggregator.core.data_interval import data_interval
from aggregator.core.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow.sdk import Context
    from psycopg import Cursor
    from psycopg.rows import TupleRow

    from aggregator.postgres.hook import PostgresTransactionHook
    from aggregator.postgres.upsert import IsolatedUpsert, Preview, Refusal, Upsert, UpsertCounts

    Row = Mapping[str, Any] | Sequence[Any]

NAMED_AT_MOST = 20
"""Refused groups that an error names."""

LONGEST_NAME = 80
"""Characters of each that it shows."""


def describe_refusal(refusal: Refusal) -> str:
    """One line about a refused group: its name, as a literal, its number of rows, and the reason, without their values.

    Args:
        refusal: What an upsert refused.
    """
    from aggregator.postgres.hook import describe

    # As a literal: a name may hold whatever somebody put there, line ends included.
    name = "null" if refusal.group is None else repr(refusal.group[:LONGEST_NAME])
    what = "cannot be computed" if refusal.rows is None else f"{refusal.rows} rows"
    return f"{name} ({what}): {describe(refusal.error)}"


def refuse_incomplete(table: str, by: str, outcome: IsolatedUpsert, *, dry_run: bool = False) -> None:
    """Fail the task if groups were refused. Call it after the others are committed.

    The error is permanent: a value, a trigger or a constraint that refuses a row refuses it again until somebody fixes
    the cause.

    Args:
        table: Where the rows go.
        by: The column that names the groups.
        outcome: Of the upsert.
        dry_run: Whether nothing was written.

    Raises:
        PermanentError: At least one group was refused; the text names them.
    """
    if not (refused := outcome.refused):
        return
    named = "; ".join(map(describe_refusal, refused[:NAMED_AT_MOST]))
    more = f"; and {len(refused) - NAMED_AT_MOST} more" if len(refused) > NAMED_AT_MOST else ""
    others = "Nothing was written in this dry run; all others would be stored" if dry_run else "All others are stored"
    msg = (
        f"PostgreSQL refused {len(refused)} of the groups of {table} by {by}: {named}{more}. {others}: "
        f"{asdict(outcome.counts)}. Fix the cause and clear the task."
    )
    raise PermanentError(msg)


class SqlUpsertOperator(BaseOperator):
    """Upsert into one table, and say how many rows were inserted, updated, unchanged or duplicates.

    Equal rows are neither rewritten nor locked, stored rows are never deleted, and values never reach the log (spec:
    SqlUpsertOperator). Rows come from exactly one of ``sql`` and ``rows``.

    Args:
        conn_id: Airflow connection of the database.
        table: ``schema.table``, exactly as the catalog has it.
        key: The columns of a unique index of the table.
        sql: One SELECT, or a ``.sql`` file that holds it, whose columns are named as the table's. Its placeholders are
            bound, not rendered: ``%(data_interval_start)s`` and ``%(data_interval_end)s`` are always there; a literal
            ``%`` is written ``%%``.
        rows: Mappings from column to value, or sequences in the order of ``columns``; usually another task's output.
            Never rendered as a template, and not shown in the UI.
        columns: The columns to take from ``rows``; needed for sequences. For mappings all those of the first row are
            taken by default, and then every row has to have the same.
        parameters: Values for further placeholders of ``sql``.
        stored: One SELECT of a number, how many rows the table has for the window, or a file that holds it. It is asked
            where ``sql`` returns nothing; if there are some, the window is reported as suspicious and left alone.
        preserve: Given columns that are stored with a new row and then stay.
        touch: Columns set to the transaction's time when a row is inserted or really changes.
        isolate_by: A column of the key whose values divide the rows of ``sql`` into groups. A group that a trigger, a
            constraint or a value makes PostgreSQL refuse does not stop the others: they are stored and committed, and
            then the task fails with a permanent error that names the refused ones. A dry run cannot foresee what
            triggers and constraints refuse.
        groups: SELECT of all groups, one text each, or a file that holds it. With it, a group that ``sql`` cannot
            compute (a sum that overflows) does not stop the others either. ``sql`` filters the rows it reads by
            ``%(groups)s``, an array of groups, or null for all.
        dry_run: Write nothing, inside a read-only transaction, and return what would be done.
        **kwargs: As for every operator.
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
        preserve: Sequence[str] = (),
        touch: Sequence[str] = (),
        isolate_by: str | None = None,
        groups: str | None = None,
        dry_run: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if (sql is None) == (rows is None):
            msg = f"Task {self.task_id} takes its rows from exactly one of `sql` and `rows`."
            raise ValueError(msg)
        if isolate_by is not None and (sql is None or isolate_by not in key):
            msg = f"Task {self.task_id} can isolate rows of `sql` only, and by a column of `key` only."
            raise ValueError(msg)
        if groups is not None and isolate_by is None:
            msg = f"Task {self.task_id} has `groups`, but no column to isolate them by. Add `isolate_by`."
            raise ValueError(msg)
        self.conn_id = conn_id
        self.table = table
        self.key = key
        self.sql = sql
        self.rows = rows
        self.columns = columns
        self.parameters = parameters
        self.stored = stored
        self.preserve = preserve
        self.touch = touch
        self.isolate_by = isolate_by
        self.groups = groups
        # BaseOperator has a method dry_run().
        self.is_dry_run = dry_run
        # Airflow looks for other tasks' output in template fields only.
        XComArg.apply_upstream_relationship(self, rows)

    @cached_property
    def hook(self) -> PostgresTransactionHook:
        """The hook for ``conn_id``."""
        from aggregator.postgres.hook import PostgresTransactionHook

        return PostgresTransactionHook(self.conn_id)

    def execute(self, context: Context) -> dict[str, Any]:
        """Upsert, or preview it.

        Args:
            context: Airflow's task context.

        Returns:
            ``inserted``, ``updated``, ``unchanged`` and ``duplicates``; in a dry run the counts there would be, and
            ``preview``: the first rows that would be written, each with its ``action``, and ``dry_run``. With
            ``stored``, also whether the window is ``suspicious``.

        Raises:
            PermanentError: The rows, the query or the table do not allow this; nothing was written, or, with
                ``isolate_by``, everything but the groups that the text names.
            TransientError: The database could not be reached or was busy; nothing was written.
        """
        from aggregator.postgres.upsert import Preview, Upsert

        upsert = Upsert(self.table, self.key, self.preserve, self.touch)
        suspicious: dict[str, bool] = {}
        outcome: UpsertCounts | Preview
        if self.sql is None:
            outcome = self._upsert_rows(context, upsert)
        else:
            suspicious, outcome = self._upsert_select(context, upsert)
        if isinstance(outcome, Preview):
            self.log.info(
                "Dry run: nothing was written to %s, but there would be %s", self.table, asdict(outcome.counts)
            )
            return {**asdict(outcome.counts), **suspicious, "preview": outcome.changes, "dry_run": True}
        self.log.info("Upserted into %s: %s", self.table, asdict(outcome))
        return {**asdict(outcome), **suspicious}

    def _upsert_select(self, context: Context, upsert: Upsert) -> tuple[dict[str, bool], UpsertCounts | Preview]:
        from aggregator.postgres.upsert import Preview

        start, end = data_interval(context)
        parameters = {**(self.parameters or {}), "data_interval_start": start, "data_interval_end": end}
        query = self.sql or ""
        if self.isolate_by is None:
            run = upsert.preview_select if self.is_dry_run else upsert.from_select
            with self.hook.task_transaction(context) as cursor:
                counts = run(cursor, query, parameters)
                return self._suspicious(cursor, parameters, counts), counts
        with self.hook.task_transaction(context) as cursor:
            isolated = upsert.isolated_select(
                cursor, query, parameters, by=self.isolate_by, groups=self.groups, dry_run=self.is_dry_run
            )
            outcome = Preview(isolated.counts, isolated.changes) if self.is_dry_run else isolated.counts
            suspicious = {} if isolated.refused else self._suspicious(cursor, parameters, outcome)
        refuse_incomplete(self.table, self.isolate_by, isolated, dry_run=self.is_dry_run)
        return suspicious, outcome

    def _suspicious(
        self, cursor: Cursor[TupleRow], parameters: Mapping[str, Any], outcome: UpsertCounts | Preview
    ) -> dict[str, bool]:
        from aggregator.postgres.empty_source import is_suspicious
        from aggregator.postgres.upsert import Preview

        if self.stored is None:
            return {}
        counts = outcome.counts if isinstance(outcome, Preview) else outcome
        empty = not any(asdict(counts).values())
        return {
            "suspicious": empty
            and is_suspicious(cursor, self.stored, parameters, source="Its query", table=self.table, log=self.log)
        }

    def _upsert_rows(self, context: Context, upsert: Upsert) -> UpsertCounts | Preview:
        from aggregator.postgres.upsert import Preview, UpsertCounts

        rows = self.rows.resolve(context) if isinstance(self.rows, XComArg) else self.rows
        if rows is None or isinstance(rows, str | bytes | Mapping):
            msg = f"The rows for {self.table} are a {type(rows).__name__}, not a list of rows. Nothing was written."
            raise PermanentError(msg)
        columns, values = self._columns_and_values(iter(rows))
        if not columns:
            return Preview(UpsertCounts(), []) if self.is_dry_run else UpsertCounts()
        run = upsert.preview_rows if self.is_dry_run else upsert.from_rows
        with self.hook.task_transaction(context) as cursor:
            return run(cursor, columns, values)

    def _columns_and_values(self, rows: Iterator[Row]) -> tuple[Sequence[str], Iterator[Sequence[Any]]]:
        columns, first = self.columns, next(rows, None)
        if columns is None and isinstance(first, Mapping):
            columns = list(first)
        if first is None:
            return columns or (), iter(())
        if columns is None:
            msg = f"The rows for {self.table} do not name their columns, and the operator was given no `columns`."
            raise PermanentError(msg)
        return columns, (self._values(row, number, columns) for number, row in enumerate(chain([first], rows), 1))

    def _values(self, row: object, number: int, columns: Sequence[str]) -> Sequence[Any]:
        if isinstance(row, Mapping):
            if missing := [column for column in columns if column not in row]:
                msg = f"Row {number} for {self.table} lacks {', '.join(missing)}. Nothing was written."
                raise PermanentError(msg)
            if self.columns is None and len(row) > len(columns):
                msg = f"Row {number} for {self.table} has columns that the first row has not. Nothing was written."
                raise PermanentError(msg)
            return [row[column] for column in columns]
        if isinstance(row, Sequence) and not isinstance(row, str | bytes):
            return row
        msg = f"Row {number} for {self.table} is a {type(row).__name__}, neither a mapping nor a sequence."
        raise PermanentError(msg)
