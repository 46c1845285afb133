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

    from aggregator.ohlcv.run import Run, Totals
    from aggregator.postgres.transaction_group import TransactionGroup


FINISH_RESERVE = timedelta(seconds=30)
"""Part of a run's time that is kept for the task ``finish``."""


class OhlcvPlanOperator(BaseOperator):
    """Find the due tasks, claim them, and divide their symbols into shards.

    Before that, the operator synchronizes the tasks with ``ohlcv.assets``, recovers stale locks, and marks the windows
    of changed candles. A run with days in its params is a rebuild and claims nothing in this step. A cleared run builds
    the windows that ended in its interval again.

    Args:
        conn_id: Airflow connection of the database.
        **kwargs: Arguments of ``BaseOperator``.
    """

    ui_color = "#e2ecf7"

    def __init__(self, *, conn_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id

    def execute(self, context: Context) -> list[list[dict[str, Any]]]:
        """Plan the run.

        Returns:
            The shards of each mapped task instance, as :func:`aggregator.ohlcv.plan.plan` returns them.

        Raises:
            PermanentError: The params are wrong, or PostgreSQL refused a statement.
            TransientError: The database was unreachable or busy; nothing was claimed.
        """
        from aggregator.ohlcv.plan import plan, prepare_partitions
        from aggregator.ohlcv.rebuild import RebuildParams, plan_rebuild
        from aggregator.ohlcv.run import SHARDS_PER_INSTANCE
        from aggregator.postgres.hook import PostgresTransactionHook

        params = RebuildParams.read(context["params"])
        run = _run(context)
        hook = PostgresTransactionHook(self.conn_id)
        with hook.task_transaction(context) as cursor:
            prepare_partitions(cursor, run)
        with hook.task_transaction(context) as cursor:
            shards = plan_rebuild(cursor, run, params) if params.is_rebuild else plan(cursor, run)
        return list(chunked(shards, SHARDS_PER_INSTANCE))


class OhlcvAggregateOperator(BaseOperator):
    """Build the bars of a few shards in parallel and release their tasks.

    A symbol with invalid candles, or one whose rows PostgreSQL refuses, fails neither the other symbols nor this task
    instance. It is recorded in ``ohlcv.tasks``, in ``ops.ops_issues`` and in the log. Repeated failures disable it.

    Args:
        conn_id: Airflow connection of the database.
        shards: Shards of this task instance, as :class:`OhlcvPlanOperator` returns them.
        **kwargs: Arguments of ``BaseOperator``.
    """

    template_fields: Sequence[str] = ("shards",)
    ui_color = "#e2ecf7"

    def __init__(self, *, conn_id: str, shards: Sequence[Mapping[str, Any]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id
        self.shards = shards
        self._group: TransactionGroup | None = None

    def execute(self, context: Context) -> dict[str, int]:
        """Build the bars of the claimed tasks, or rebuild the days in the params.

        Returns:
            The counts, and whether this was a ``dry_run``.

        Raises:
            PermanentError: PostgreSQL refused a statement. The transactions before it are stored.
            TransientError: The connection failed or the database was busy. The transactions before it are stored.
        """
        from aggregator.ohlcv.aggregate import aggregate
        from aggregator.ohlcv.rebuild import RebuildParams, rebuild
        from aggregator.ohlcv.run import Totals
        from aggregator.postgres.hook import PostgresTransactionHook
        from aggregator.postgres.transaction_group import TransactionGroup

        params = RebuildParams.read(context["params"])
        run = _run(context)
        # A hook keeps the connection that it opened last, so each transaction needs its own hook.
        group = self._group = TransactionGroup(lambda: PostgresTransactionHook(self.conn_id).task_transaction(context))

        def build(shard: Mapping[str, Any]) -> Totals:
            if params.is_rebuild:
                return rebuild(group.transaction, run, params, **shard)
            return aggregate(group.transaction, run, **shard)

        totals = sum(group.run(build, self.shards), Totals())
        # The param dryRun is true by default and applies to rebuilds only. Metrics use this field instead.
        return {**asdict(totals), "dry_run": params.is_rebuild and params.dry_run}

    def on_kill(self) -> None:
        """Cancel running statements and prevent further commits. Airflow calls this on SIGTERM."""
        if self._group:
            self._group.end()


class OhlcvFinishOperator(ClosingOperator):
    """Close the run log, release claims that are left, and fail if a task of the run failed.

    Args:
        conn_id: Airflow connection of the database.
        **kwargs: Arguments of ``BaseOperator``.
    """

    ui_color = "#e2ecf7"

    def __init__(self, *, conn_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Finish the run.

        Returns:
            The totals of the run.

        Raises:
            PermanentError: A task of the run failed, or planned work was not done. The claims were released.
            TransientError: The database was unreachable or busy.
        """
        from aggregator.ohlcv.run import finish, key_values
        from aggregator.postgres.hook import PostgresTransactionHook

        failed = failed_tasks(context)
        failure = describe_failed(failed) if failed else None
        with PostgresTransactionHook(self.conn_id).task_transaction(context) as cursor:
            totals = finish(cursor, _run(context), failure)
        if not totals.pop("complete"):
            reason = failure or "Not all shards of this run were done, although no task failed."
            msg = f"{reason} {_consequence(context, failed, totals)}"
            raise PermanentError(msg)
        self.log.info("Finished %s", key_values(totals))
        return totals


def _consequence(context: Context, failed: Sequence[str], totals: Mapping[str, Any]) -> str:
    """Sentences that say what a failed run has stored and what to do next."""
    from aggregator.ohlcv.run import key_values

    params = context["params"]
    is_rebuild = any(params[name] for name in ("startDate", "endDate", "symbols", "timeframes"))
    stored = key_values({name: count for name, count in totals.items() if count}) or "nothing"
    if "plan" in failed and is_rebuild:
        return "Nothing was rebuilt. Fix the cause and clear this run, or start a run with other params."
    if "plan" in failed:
        return (
            "Nothing was claimed. The next run builds the windows that are due. If you cleared this run to build its "
            "windows again, fix the cause and clear it again."
        )
    if is_rebuild and params["dryRun"]:
        return "This was a dry run, so nothing was stored. Clear this run to start the dry run again."
    if is_rebuild:
        return f"Clear this run to continue the rebuild where it stopped. Stored so far: {stored}."
    return f"Its claims were released, and the next run builds what is missing. Stored: {stored}."


def _run(context: Context) -> Run:
    from aggregator.ohlcv.run import Run

    settings = OhlcvSettings.load()
    logging.getLogger("aggregator.ohlcv").setLevel(settings.log_level)
    interval = data_interval(context)
    dag: Any = context["dag"]
    if not isinstance(dag.timetable, OffsetCronTimetable):
        msg = f"DAG {dag.dag_id} has no OffsetCronTimetable. Nothing was done. Use OffsetCronTimetable as its schedule."
        raise PermanentError(msg)
    due = interval.end + dag.timetable.offset
    # The next run is due one interval later. The deadline may be earlier.
    available = min([interval.end - interval.start, *(alert.interval for alert in dag.deadline or ())])
    return Run(context["run_id"], interval.start, interval.end, due, settings, due + available - FINISH_RESERVE)
