"""Rolls telemetry up by day and event type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from pydantic import ValidationError

from aggregator.data_interval import data_interval
from aggregator.errors import HardError
from aggregator.operators.sql_upsert import describe_refusal, refuse_incomplete
from aggregator.telemetry import TelemetryDailyParams, problems

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg
    from airflow.sdk import Context
    from psycopg import sql
    from psycopg.rows import TupleRow

    from aggregator.upsert import IsolatedUpsert

    Cursor = psycopg.Cursor[TupleRow]

RESULTS_AT_MOST = 1000
"""Rollups that the result lists; ``processed`` counts them all."""

_CREATE_ROLLUPS = """
create temporary table telemetry_rollups on commit drop as
{query}
"""

_RESULTS = """
select count(*) over () as processed, date::text, event, count, unique_users
from {rollups} as rollups
where event <> all (%(refused)s::text[])
order by date, event
limit {limit}
"""


class TelemetryDailyOperator(BaseOperator):
    """Upsert the rollups of the run's day, or of the range in its params (spec: telemetry).

    An event type that PostgreSQL refuses does not stop the others: they are stored and committed, the result says what
    was refused, and then the task fails. Days without events erase nothing.

    Args:
        conn_id: Airflow connection of the database.
        sql: SELECT of the rollups from ``%(first_day)s`` to ``%(last_day)s``, both inclusive, or its file.
        stored: SELECT of one number, how many rollups are stored for these days, or its file.
        table: Target, as ``schema.table``, with ``date`` and ``event`` as its key.
        **kwargs: As for every operator.
    """

    template_fields: Sequence[str] = ("sql", "stored")
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers = dict.fromkeys(("sql", "stored"), "postgresql")
    ui_color = "#e8f0e4"

    def __init__(self, *, conn_id: str, sql: str, stored: str, table: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id
        self.sql = sql
        self.stored = stored
        self.table = table

    def execute(self, context: Context) -> dict[str, Any]:
        """Store the rollups, or with the param ``dryRun`` compute them in a read-only transaction.

        Args:
            context: Airflow's task context, with the params ``startDate``, ``endDate`` and ``dryRun``.

        Returns:
            ``success``, ``processed`` (rollups that are stored, or would be), ``errors`` (a line for each event type
            that was refused) and ``results``: ``date``, ``event``, ``count`` and ``unique_users`` of the first
            `RESULTS_AT_MOST` of them. It is the task's XCom also if the task fails because of ``errors``.

        Raises:
            HardError: The params are wrong, and nothing was read; or event types were refused, and all others are
                stored; or PostgreSQL refused everything.
            TransientError: The database could not be reached or was busy; nothing was written.
        """
        from psycopg import sql

        from aggregator.hooks.postgres import PostgresTransactionHook
        from aggregator.upsert import IsolatedUpsert, Upsert, UpsertCounts

        try:
            params = TelemetryDailyParams.model_validate(dict(context["params"]))
        except ValidationError as error:
            msg = f"The params of this run are wrong: {problems(error.errors())}. Nothing was read."
            raise HardError(msg) from None
        first, last = params.days(data_interval(context).start.date())
        parameters = {"first_day": first, "last_day": last}
        query = sql.SQL(self.sql)
        hook = PostgresTransactionHook(self.conn_id)
        outcome = IsolatedUpsert(UpsertCounts())
        with hook.task_transaction(context, read_only=params.dry_run) as cursor:
            rollups: sql.Composable = sql.SQL("({})").format(query)
            if not params.dry_run:
                cursor.execute(sql.SQL(_CREATE_ROLLUPS).format(query=query), parameters)
                rollups = sql.Identifier("pg_temp", "telemetry_rollups")
                upsert = Upsert(self.table, ["date", "event"])
                outcome = upsert.isolated_select(cursor, "select * from pg_temp.telemetry_rollups", by="event")
            result = _result(cursor, rollups, parameters, outcome)
            self._warn_if_suspicious(cursor, parameters, outcome, result["processed"])
        self.log.info("%s – %s: %s", first, last, "dry run, nothing was written" if params.dry_run else outcome.counts)
        if outcome.refused:
            # A failing task returns nothing, and whoever waits for the run shall still get the result.
            context["ti"].xcom_push("return_value", result)
        refuse_incomplete(self.table, "event", outcome)
        return result

    def _warn_if_suspicious(
        self, cursor: Cursor, parameters: dict[str, Any], outcome: IsolatedUpsert, processed: int
    ) -> None:
        from aggregator.empty_source import is_suspicious

        if not processed and not outcome.refused:
            is_suspicious(cursor, self.stored, parameters, source="public.telemetry", table=self.table, log=self.log)


def _result(
    cursor: Cursor, rollups: sql.Composable, parameters: dict[str, Any], outcome: IsolatedUpsert
) -> dict[str, Any]:
    from psycopg import sql

    statement = sql.SQL(_RESULTS).format(rollups=rollups, limit=sql.Literal(RESULTS_AT_MOST))
    refused = [refusal.group for refusal in outcome.refused]
    rows = cursor.execute(statement, {**parameters, "refused": refused}).fetchall()
    names = ("date", "event", "count", "unique_users")
    return {
        "success": not outcome.refused,
        "processed": rows[0][0] if rows else 0,
        "errors": [describe_refusal(refusal) for refusal in outcome.refused],
        "results": [dict(zip(names, values, strict=True)) for _, *values in rows],
    }
