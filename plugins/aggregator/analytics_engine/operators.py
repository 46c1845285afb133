"""Operators for queries on Workers Analytics Engine: into XCom, and into a PostgreSQL table."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator

from aggregator.core.data_interval import data_interval
from aggregator.core.errors import PermanentError
from aggregator.core.text import listed
from aggregator.postgres.operators import LONGEST_NAME, NAMED_AT_MOST, is_suspicious, refuse_incomplete

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import psycopg
    from airflow.sdk import Context
    from psycopg.rows import TupleRow

    from aggregator.analytics_engine.dialect import Parameter
    from aggregator.analytics_engine.types import Value

MAX_ROWS = 1000
"""Maximum number of rows of a result. XCom is a table of Airflow's metadata database."""


class AnalyticsEngineOperator(BaseOperator):
    """Query Analytics Engine for the run's window and return the rows.

    The query can use ``%(data_interval_start)s`` and ``%(data_interval_end)s``, the bounds of the window. For more than
    `MAX_ROWS` rows use ``AnalyticsEngineToPostgresOperator``. No DAG of this repository uses this operator; it is for
    your own (``docs/extend/write-a-dag.md``).

    Args:
        sql: One statement that ends with ``FORMAT JSON``, or the name of its ``.sql`` file.
        parameters: Values of its other placeholders, as in `dialect.bind`.
        conn_id: Airflow connection, as `AnalyticsEngineHook` describes it.
        **kwargs: As for every operator.
    """

    template_fields: Sequence[str] = ("sql", "parameters", "conn_id")
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "sql", "parameters": "json"}
    ui_color = "#f6d9bd"

    def __init__(
        self,
        *,
        sql: str,
        parameters: Mapping[str, Parameter] | None = None,
        conn_id: str = "analytics_engine",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sql = sql
        self.parameters = parameters
        self.conn_id = conn_id

    def execute(self, context: Context) -> list[dict[str, Value]]:
        """Run the query.

        Returns:
            The rows, each by column name.

        Raises:
            PermanentError: The window starts before Analytics Engine's retention, or the result has more than
                `MAX_ROWS` rows.
            AggregatorError: As `AnalyticsEngineHook.stream` raises it.
        """
        from aggregator.analytics_engine.hook import AnalyticsEngineHook

        window = data_interval(context)
        hook = AnalyticsEngineHook(self.conn_id)
        hook.require_retained(window.start)
        bounds = {"data_interval_start": window.start, "data_interval_end": window.end}
        with hook.stream(self.sql, {**bounds, **(self.parameters or {})}) as result:
            rows = list(islice(result, MAX_ROWS + 1))
            names = [column.name for column in result.columns]
        if len(rows) > MAX_ROWS:
            raise PermanentError(
                f"The result has more than {MAX_ROWS} rows, too many for XCom. Nothing was returned. Aggregate more, "
                "or use AnalyticsEngineToPostgresOperator, which writes the rows into a table."
            )
        self.log.info("Queried Analytics Engine: requests=%d rows=%d", hook.requests_sent, len(rows))
        return [dict(zip(names, row, strict=True)) for row in rows]


class AnalyticsEngineToPostgresOperator(BaseOperator):
    """Upsert the result of an Analytics Engine query of any size, in constant memory and one transaction.

    1. The result is streamed with COPY into the temporary table ``pg_temp.analytics_engine_answer``. Its columns are
       those of the query.
    2. ``select`` computes the target's rows from it, and `aggregator.postgres.upsert.upsert` writes them. All
       rows of a window are stored or none, unless ``isolate_by`` is set.

    An empty result never deletes stored rows. If ``stored`` counts rows for the window, the window is ``suspicious``,
    and the log has a warning.

    Every query can use ``%(data_interval_start)s`` and ``%(data_interval_end)s``, the bounds of the run's window.

    Args:
        sql: The query for Analytics Engine, one statement that ends with ``FORMAT JSON`` in any case, or its file.
        select: SELECT from ``pg_temp.analytics_engine_answer`` whose columns are the target's, or its file.
        stored: SELECT of one number, the target's rows for the window, or its file.
        table: Target, as ``schema.table``.
        key: Columns of a unique index of the target.
        skipped: SELECT of the result's rows that ``select`` omits, or its file. The log shows its first column.
        touch: Columns of the target, such as ``updated_at``, that are set to the transaction's time in new and changed
            rows; none by default, as for ``SqlUpsertOperator``.
        isolate_by: A column of the key whose values divide the rows of ``select`` into groups. If a trigger, a
            constraint or a value makes PostgreSQL refuse a group, the other groups are committed. Then the task fails
            with a permanent error that names the refused groups. Do not cast to the target's types in ``select``: a
            value that cannot be cast there fails the whole query.
        analytics_engine_conn_id: Connection of Analytics Engine.
        postgres_conn_id: Connection of the target's database.
    """

    template_fields: Sequence[str] = ("sql", "select", "stored", "skipped")
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = dict.fromkeys(template_fields, "sql")
    ui_color = "#fbe3c4"

    def __init__(
        self,
        *,
        sql: str,
        select: str,
        stored: str,
        table: str,
        key: Sequence[str],
        postgres_conn_id: str,
        skipped: str | None = None,
        touch: Sequence[str] = (),
        isolate_by: str | None = None,
        analytics_engine_conn_id: str = "analytics_engine",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isolate_by is not None and isolate_by not in key:
            msg = f"Task {self.task_id} cannot isolate rows by {isolate_by!r}. Set `isolate_by` to a column of `key`."
            raise ValueError(msg)
        self.sql = sql
        self.select = select
        self.stored = stored
        self.table = table
        self.key = key
        self.postgres_conn_id = postgres_conn_id
        self.skipped = skipped
        self.touch = touch
        self.isolate_by = isolate_by
        self.analytics_engine_conn_id = analytics_engine_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Query the run's window and store the result.

        Returns:
            The number of ``requests``, of rows ``read`` and ``skipped``, of rows ``inserted``, ``updated``,
            ``unchanged`` and ``duplicates``, and whether the window is ``suspicious``.

        Raises:
            AggregatorError: No row was stored. With ``isolate_by`` all groups but those in the text may be stored.
        """
        from aggregator.analytics_engine.hook import AnalyticsEngineHook
        from aggregator.postgres.hook import PostgresTransactionHook
        from aggregator.postgres.upsert import Query, UpsertSpec, upsert

        window = data_interval(context)
        bounds = {"data_interval_start": window.start, "data_interval_end": window.end}
        analytics_engine = AnalyticsEngineHook(self.analytics_engine_conn_id)
        analytics_engine.require_retained(window.start)
        postgres = PostgresTransactionHook(self.postgres_conn_id)
        # The query first: no transaction is open while Analytics Engine computes it.
        with (
            analytics_engine.stream(self.sql, bounds) as result,
            postgres.task_transaction(context) as cursor,
        ):
            read = result.copy_to(cursor)
            if read == 0:
                suspicious = is_suspicious(
                    cursor, self.stored, bounds, source="Analytics Engine", table=self.table, log=self.log
                )
                return {"requests": analytics_engine.requests_sent, "read": 0, "suspicious": suspicious}
            skipped = self._log_skipped(cursor, bounds)
            spec = UpsertSpec(self.table, self.key, self.touch)
            outcome = upsert(cursor, spec, Query(self.select, bounds, self.isolate_by))
        written = {"skipped": skipped, **asdict(outcome.counts), "suspicious": False}
        counts = {"requests": analytics_engine.requests_sent, "read": read, **written}
        shown = " ".join(f"{name}={count}" for name, count in counts.items())
        self.log.info("Stored %s – %s in %s: %s", window.start, window.end, self.table, shown)
        if self.isolate_by is not None:
            refuse_incomplete(self.table, self.isolate_by, outcome)
        return counts

    def _log_skipped(self, cursor: psycopg.Cursor[TupleRow], parameters: Mapping[str, Any]) -> int:
        if self.skipped is None:
            return 0
        from psycopg import sql

        # The query's own last line may be a comment.
        statement = sql.SQL("select count(*) over (), skipped.* from (\n{}\n) as skipped limit {}").format(
            sql.SQL(self.skipped), sql.Literal(NAMED_AT_MOST)
        )
        rows = cursor.execute(statement, parameters).fetchall()
        if not rows:
            return 0
        skipped: int = rows[0][0]
        # As literals: a name may contain line ends and other text of a client of the product's API.
        names = (repr(str(name)[:LONGEST_NAME]) for _, name, *_ in rows)
        self.log.warning("Skipped %d rows of the result: %s", skipped, listed(names, NAMED_AT_MOST, of=skipped))
        return skipped
