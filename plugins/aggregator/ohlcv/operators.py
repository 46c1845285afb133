"""The three steps of an OHLCV run: plan, aggregate, finish."""

from __future__ import annotations

import logging
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from more_itertools import chunked

from aggregator.core.data_interval import data_interval
from aggregator.core.errors import PermanentError
from aggregator.core.operators import ClosingOperator, describe_failed, failed_tasks
from aggregator.core.settings import OhlcvSettings
from aggregator.core.timetable import OffsetCronTimetable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from aggregator.ohlcv.aggregation import Run
    from aggregator.postgres.transaction_group import TransactionGroup


TO_FINISH = timedelta(seconds=30)
"""What a run keeps of its time for the task `finish`."""


class OhlcvPlanOperator(BaseOperator):
    """Find out what is due, claim it, and divide it into shards of symbols (spec: OHLCV).

    Tasks are synchronised with the asset registry first, stale locks recovered, and changed candles looked through.
    With days in its params, the run is a rebuild instead and claims nothing yet. A run that is cleared builds the
    windows again that ended in its interval.

    Args:
        conn_id: Airflow connection of the database.
        **kwargs: As for every operator.
    """

    ui_color = "#e2ecf7"

    def __init__(self, *, conn_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id

    def execute(self, context: Context) -> list[list[dict[str, Any]]]:
        """Plan the run.

        Returns:
            For each task instance to follow its shards, as :func:`aggregator.ohlcv.aggregation.plan` returns them.

        Raises:
            PermanentError: The params are wrong, or PostgreSQL refused a statement.
            TransientError: The database could not be reached or was busy; nothing was claimed.
        """
        from aggregator.ohlcv import aggregation as ohlcv
        from aggregator.postgres.hook import PostgresTransactionHook

        params = ohlcv.RebuildParams.read(context["params"])
        run = _run(context)
        hook = PostgresTransactionHook(self.conn_id)
        with hook.task_transaction(context) as cursor:
            ohlcv.prepare_partitions(cursor, run)
        with hook.task_transaction(context) as cursor:
            shards = ohlcv.plan_rebuild(cursor, run, params) if params.wanted else ohlcv.plan(cursor, run)
        return list(chunked(shards, ohlcv.SHARDS_AT_ONCE))


class OhlcvAggregateOperator(BaseOperator):
    """Build the bars of some shards at once, each in a transaction of its own, and release their tasks (spec: OHLCV).

    A symbol whose candles make no bar, or which PostgreSQL refuses, does not stop the others, nor does it fail the
    task: it is named in its state, in ``ops.ops_issues`` and in the log, and disabled if that goes on.

    Args:
        conn_id: Airflow connection of the database.
        shards: Those of one task instance, as :class:`OhlcvPlanOperator` returns them.
        **kwargs: As for every operator.
    """

    template_fields: Sequence[str] = ("shards",)
    ui_color = "#e2ecf7"

    def __init__(self, *, conn_id: str, shards: Sequence[Mapping[str, Any]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id
        self.shards = shards
        self._group: TransactionGroup | None = None

    def execute(self, context: Context) -> dict[str, int]:
        """Build the bars, or with days in the params rebuild those of the days.

        Returns:
            What was done, by count, and whether it was a ``dry_run``.

        Raises:
            PermanentError: PostgreSQL refused a statement for what it says; nothing of that shard is stored, of a
                rebuild only its earlier chunks.
            TransientError: The database was lost or busy; likewise.
        """
        from aggregator.ohlcv import aggregation as ohlcv
        from aggregator.postgres.hook import PostgresTransactionHook
        from aggregator.postgres.transaction_group import TransactionGroup

        params = ohlcv.RebuildParams.read(context["params"])
        run = _run(context)
        # A hook keeps the connection that it opened last, so each transaction has a hook of its own.
        group = self._group = TransactionGroup(lambda: PostgresTransactionHook(self.conn_id).task_transaction(context))

        def build(shard: Mapping[str, Any]) -> ohlcv.Totals:
            if params.wanted:
                return ohlcv.rebuild(group.transaction, run, params, **shard)
            return ohlcv.aggregate(group.transaction, run, **shard)

        totals = sum(group.run(build, self.shards), ohlcv.Totals())
        if params.wanted:
            self.log.info("%s: %s", "Dry run, rolled back" if params.dry_run else "Rebuilt", asdict(totals))
        # The param is for rebuilds, and true by default: metrics count what the result says.
        return {**asdict(totals), "dry_run": params.wanted and params.dry_run}

    def on_kill(self) -> None:
        """Cancel the statements that run, and let nothing commit anymore: Airflow calls this at SIGTERM."""
        if self._group:
            self._group.end()


class OhlcvFinishOperator(ClosingOperator):
    """Close the run log, and fail if a task of the run failed (spec: OHLCV).

    Args:
        conn_id: Airflow connection of the database.
        **kwargs: As for every operator.
    """

    ui_color = "#e2ecf7"

    def __init__(self, *, conn_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Finish the run.

        Returns:
            The run's totals.

        Raises:
            PermanentError: A task of the run failed, or not all of its work is done. Its claims are released.
            TransientError: The database could not be reached or was busy.
        """
        from aggregator.ohlcv import aggregation as ohlcv
        from aggregator.postgres.hook import PostgresTransactionHook

        failed = failed_tasks(context)
        failure = describe_failed(failed) if failed else None
        with PostgresTransactionHook(self.conn_id).task_transaction(context) as cursor:
            totals = ohlcv.finish(cursor, _run(context), failure)
        if not totals.pop("complete"):
            reason = failure or "Not all shards of this run are done, though no task of it failed."
            msg = f"{reason} {_consequence(context, failed, totals)}"
            raise PermanentError(msg)
        self.log.info("The whole run: %s", totals)
        return totals


def _consequence(context: Context, failed: Sequence[str], totals: Mapping[str, Any]) -> str:
    """What a failed run has left behind, and what to do."""
    is_rebuild = any(context["params"][name] for name in ("startDate", "endDate", "symbols", "timeframes"))
    stored = ", ".join(f"{name}={count}" for name, count in totals.items() if count) or "nothing"
    if "plan" in failed and is_rebuild:
        return "Nothing was rebuilt. Fix the cause and clear this run, or trigger a run with other params."
    if "plan" in failed:
        return (
            "Nothing was claimed. The next run builds the windows that are due. If you cleared this run to build its "
            "windows again, fix the cause and clear it again."
        )
    if is_rebuild:
        return f"Clear this run to continue the rebuild where it stopped. Stored so far: {stored}."
    return f"Its claims are released, and the next run builds what is missing. Stored: {stored}."


def _run(context: Context) -> Run:
    from aggregator.ohlcv import aggregation as ohlcv

    given = OhlcvSettings.load()
    logging.getLogger(ohlcv.__name__).setLevel(given.log_level)
    interval = data_interval(context)
    dag: Any = context["dag"]
    if not isinstance(dag.timetable, OffsetCronTimetable):
        msg = f"DAG {dag.dag_id} has no OffsetCronTimetable; give it one as its schedule."
        raise PermanentError(msg)
    due = interval.end + dag.timetable.offset
    # The next run is due an interval later. The deadline may be earlier.
    time = min([interval.end - interval.start, *(alert.interval for alert in dag.deadline or ())])
    return ohlcv.Run(context["run_id"], interval.start, interval.end, due, given, due + time - TO_FINISH)
