"""Operator for queries on Workers Analytics Engine whose results fit into XCom."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator

from aggregator.core.data_interval import data_interval
from aggregator.core.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from airflow.sdk import Context

    from aggregator.analytics_engine.dialect import Parameter
    from aggregator.analytics_engine.types import Value

MAX_ROWS = 1000
"""Maximum number of rows of a result. XCom is a table of Airflow's metadata database."""


def window_parameters(sql: str, start: datetime, end: datetime) -> dict[str, Parameter]:
    """The bounds of the window for which ``sql`` has placeholders.

    Args:
        sql: Text with placeholders.
        start: Start of the window, inclusive.
        end: End of the window, exclusive.

    Returns:
        Values of ``data_interval_start`` and ``data_interval_end``, each if it is used.
    """
    from aggregator.analytics_engine.dialect import placeholders

    window: dict[str, Parameter] = {"data_interval_start": start, "data_interval_end": end}
    return {name: window[name] for name in window.keys() & placeholders(sql)}


class AnalyticsEngineOperator(BaseOperator):
    """Query Analytics Engine for the run's window and return the rows.

    The query can use ``%(data_interval_start)s`` and ``%(data_interval_end)s``, the bounds of the window. For more than
    `MAX_ROWS` rows use ``AnalyticsEngineToPostgresOperator``. No DAG of this repository uses this operator; it is for
    your own (``docs/extend/write-a-dag.md``).
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
        """Set the query. It is sent when the task runs.

        Args:
            sql: One statement that ends with ``FORMAT JSON``, or the name of its ``.sql`` file.
            parameters: Values of its other placeholders, as in `dialect.bind`.
            conn_id: Airflow connection, as `AnalyticsEngineHook` describes it.
            kwargs: Arguments of every operator.
        """
        super().__init__(**kwargs)
        self.sql = sql
        self.parameters = parameters
        self.conn_id = conn_id

    def execute(self, context: Context) -> list[dict[str, Value]]:
        """Run the query.

        Args:
            context: The task's context.

        Returns:
            The rows, each by column name.

        Raises:
            PermanentError: The window starts before Analytics Engine's retention, or the result has more than
                `MAX_ROWS` rows.
            AggregatorError: As `AnalyticsEngineHook.stream` raises it.
        """
        from aggregator.analytics_engine.hook import AnalyticsEngineHook

        start, end = data_interval(context)
        hook = AnalyticsEngineHook(self.conn_id)
        hook.require_retained(start)
        parameters = {**window_parameters(self.sql, start, end), **(self.parameters or {})}
        with hook.stream(self.sql, parameters) as result:
            rows = list(islice(result, MAX_ROWS + 1))
            names = [column.name for column in result.columns]
        if len(rows) > MAX_ROWS:
            msg = (
                f"The result has more than {MAX_ROWS} rows, too many for XCom. Nothing was returned. Aggregate more, "
                "or use AnalyticsEngineToPostgresOperator, which writes the rows into a table."
            )
            raise PermanentError(msg)
        self.log.info("Queried Analytics Engine: requests=%d rows=%d", hook.requests_sent, len(rows))
        return [dict(zip(names, row, strict=True)) for row in rows]
