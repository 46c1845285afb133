"""Queries on Workers Analytics Engine whose results are small enough for XCom (spec: shared parts)."""

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
"""Rows that XCom is asked to hold; it is a table of Airflow's metadata database."""


def window_parameters(sql: str, start: datetime, end: datetime) -> dict[str, Parameter]:
    """The window's bounds, as far as ``sql`` has placeholders for them.

    Args:
        sql: Text with placeholders.
        start: When the window begins.
        end: When it is over.

    Returns:
        Values of ``data_interval_start`` and ``data_interval_end``.
    """
    from aggregator.analytics_engine.dialect import placeholders

    window: dict[str, Parameter] = {"data_interval_start": start, "data_interval_end": end}
    return {name: window[name] for name in window.keys() & placeholders(sql)}


class AnalyticsEngineOperator(BaseOperator):
    """Runs a query on Analytics Engine for the run's window, and returns its rows.

    ``%(data_interval_start)s`` and ``%(data_interval_end)s`` in the query are the window's bounds. For results of more
    than `MAX_ROWS` rows there is ``AnalyticsEngineToPostgresOperator``.
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
        """Remember the query; it is sent when the task runs.

        Args:
            sql: One statement that ends with ``FORMAT JSON``, or the name of a ``.sql`` file that holds it.
            parameters: Values of its other placeholders, as `dialect.bind` has them.
            conn_id: Airflow connection, as `AnalyticsEngineHook` has it.
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
            PermanentError: The window begins before Analytics Engine's retention, or the result has more than
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
                f"The query has more than {MAX_ROWS} rows, too many for XCom; none was returned. Aggregate more, or "
                "use AnalyticsEngineToPostgresOperator, which writes them into a table."
            )
            raise PermanentError(msg)
        self.log.info("%d rows", len(rows))
        return [dict(zip(names, row, strict=True)) for row in rows]
