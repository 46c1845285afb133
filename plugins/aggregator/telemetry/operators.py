"""Operator that rolls up telemetry by day and event type."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from pydantic import ValidationError

from aggregator.core.data_interval import data_interval
from aggregator.core.errors import WrongParamsError
from aggregator.core.params import problems
from aggregator.postgres.operators import describe_refusal, is_suspicious, refuse_incomplete
from aggregator.telemetry.params import TelemetryDailyParams

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg
    from airflow.sdk import Context
    from psycopg.rows import TupleRow

    from aggregator.postgres.upsert import UpsertResult

_COUNTS = ("inserted", "updated", "unchanged")

RESULTS_AT_MOST = 1000
"""Limit of the rollups in the result; ``processed`` counts all of them."""

_ROLLUPS = "telemetry_rollups"
_ALL_ROLLUPS = "select * from pg_temp.telemetry_rollups"

# to_char: ISO 8601 with any DateStyle of the session.
_RESULTS = """
select count(*) over () as processed, to_char(date, 'YYYY-MM-DD'), event, count, unique_users
from {rollups} as rollups
where event <> all (%(refused)s::text[])
order by date, event
limit {limit}
"""


class TelemetryDailyOperator(BaseOperator):
    """Upsert the rollups of the run's day, or of the range in its params (spec: telemetry).

    An event type that PostgreSQL cannot compute or refuses to store does not stop the others. The others are committed,
    the result names the refused event types, and then the task fails. Days without events delete nothing.

    Args:
        conn_id: Airflow connection of the database.
        sql: SELECT of the rollups from ``%(first_day)s`` to ``%(last_day)s``, both inclusive, or its file. It reads
            only the event types in the array ``%(groups)s``, or all event types if the array is null.
        event_types: SELECT of all event types of these days, one per row, or its file.
        stored: SELECT of the number of stored rollups of these days, or its file.
        table: Target, as ``schema.table``, with ``date`` and ``event`` as its key.
        **kwargs: As for every operator.
    """

    template_fields: Sequence[str] = ("sql", "event_types", "stored")
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers = dict.fromkeys(("sql", "event_types", "stored"), "postgresql")
    ui_color = "#e8f0e4"

    def __init__(self, *, conn_id: str, sql: str, event_types: str, stored: str, table: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id
        self.sql = sql
        self.event_types = event_types
        self.stored = stored
        self.table = table

    def execute(self, context: Context) -> dict[str, Any]:
        """Store the rollups. With the param ``dryRun``, compute them in a read-only transaction.

        Args:
            context: Airflow's task context, with the params ``startDate``, ``endDate`` and ``dryRun``.

        Returns:
            ``success``; ``processed``, the number of rollups that are stored or would be; ``inserted``, ``updated``
            and ``unchanged``, their parts; ``errors``, a line per refused event type; ``results``, the ``date``,
            ``event``, ``count`` and ``unique_users`` of the first `RESULTS_AT_MOST` rollups. It is the task's XCom even
            if the task fails because of ``errors``.

        Raises:
            WrongParamsError: The params are invalid. Nothing was read.
            PermanentError: Event types were refused, and all others are stored; or PostgreSQL refused everything.
            TransientError: The database could not be reached or was busy. Nothing was written.
        """
        from aggregator.postgres.hook import PostgresTransactionHook
        from aggregator.postgres.upsert import Query, UpsertSpec, compute, upsert

        try:
            params = TelemetryDailyParams.model_validate(dict(context["params"]))
        except ValidationError as error:
            msg = f"The params of this run are invalid: {problems(error.errors())}. Nothing was read. Start a new run."
            raise WrongParamsError(msg) from None
        first, last = params.days(data_interval(context).start.date())
        parameters = {"first_day": first, "last_day": last}
        spec, dry_run = UpsertSpec(self.table, ["date", "event"]), params.dry_run
        hook = PostgresTransactionHook(self.conn_id)
        with hook.task_transaction(context) as cursor:
            not_computed = compute(cursor, _ROLLUPS, self.sql, parameters, groups=self.event_types, dry_run=dry_run)
            outcome = upsert(cursor, spec, Query(_ALL_ROLLUPS, isolate_by="event"), dry_run=dry_run)
            outcome = replace(outcome, refused=[*not_computed, *outcome.refused])
            result = _result(cursor, outcome)
            if not result["processed"] and not outcome.refused:
                is_suspicious(
                    cursor, self.stored, parameters, source="public.telemetry", table=self.table, log=self.log
                )
        counts = " ".join(f"{name}={result[name]}" for name in ("processed", *_COUNTS))
        refused = len(outcome.refused)
        self.log.info("Rolled up: from=%s to=%s dry_run=%s %s refused=%d", first, last, dry_run, counts, refused)
        if outcome.refused:
            # A failed task has no return value, and a caller with `wait=true` needs the result.
            context["ti"].xcom_push("return_value", result)
        refuse_incomplete(self.table, "event", outcome, dry_run=dry_run)
        return result


def _result(cursor: psycopg.Cursor[TupleRow], outcome: UpsertResult) -> dict[str, Any]:
    from psycopg import sql

    statement = sql.SQL(_RESULTS).format(
        rollups=sql.Identifier("pg_temp", _ROLLUPS), limit=sql.Literal(RESULTS_AT_MOST)
    )
    refused = [refusal.group for refusal in outcome.refused]
    rows = cursor.execute(statement, {"refused": refused}).fetchall()
    names = ("date", "event", "count", "unique_users")
    return {
        "success": not outcome.refused,
        "processed": rows[0][0] if rows else 0,
        **{name: getattr(outcome.counts, name) for name in _COUNTS},
        "errors": [describe_refusal(refusal) for refusal in outcome.refused],
        "results": [dict(zip(names, values, strict=True)) for _, *values in rows],
    }
