"""The tasks of an OHLCV run: build the bars, in shards if there are many symbols, and finish."""

from __future__ import annotations

import logging
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, TriggerRule
from more_itertools import chunked

from aggregator.core import metrics
from aggregator.core.data_interval import data_interval
from aggregator.core.errors import PermanentError
from aggregator.core.operators import ClosingOperator, describe_failed, failed_tasks
from aggregator.core.settings import OhlcvSettings
from aggregator.core.timetable import OffsetCronTimetable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from aggregator.ohlcv.rebuild import RebuildParams
    from aggregator.ohlcv.run import Outcome, Run, Totals
    from aggregator.postgres.transaction_group import TransactionGroup


FINISH_RESERVE = timedelta(seconds=30)
"""Part of a run's time that is kept for closing the run log."""


class OhlcvBuildOperator(BaseOperator):
    """Build bars: those of the given shards, or those of the whole run.

    Without shards, the operator plans the run. The plan synchronizes the tasks with ``ohlcv.assets``, recovers stale
    locks, marks the windows of changed candles, claims the due tasks and divides their symbols into shards. Up to
    `SHARDS_PER_INSTANCE` of them are built at once, and the run is closed. XCom ``plan`` then has the counts of the
    plan, and XCom ``totals`` those of the bars. More shards are returned for mapped instances of this operator.

    A run with days in its params is a rebuild. A cleared run builds the windows that ended in its interval again.

    A symbol with invalid candles, or one whose rows PostgreSQL refuses, fails neither the other symbols nor the task
    instance. It is recorded in ``ohlcv.tasks``, in ``ops.ops_issues`` and in the log. Repeated failures disable it.

    Args:
        conn_id: Airflow connection of the database.
        shards: Shards of a mapped instance.
        **kwargs: Arguments of ``BaseOperator``.
    """

    template_fields: Sequence[str] = ("shards",)
    ui_color = "#e2ecf7"

    def __init__(self, *, conn_id: str, shards: Sequence[Mapping[str, Any]] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id
        self.shards = shards
        self.totals: dict[str, Any] | None = None
        self._group: TransactionGroup | None = None

    def execute(self, context: Context) -> dict[str, Any] | list[list[dict[str, Any]]]:
        """Build the bars.

        Returns:
            The counts of the given shards. Without given shards, those that are left for mapped instances, if any.

        Raises:
            PermanentError: The params are wrong, or PostgreSQL refused a statement.
            TransientError: The database was unreachable or busy. Earlier transactions are stored, as after any error.
        """
        from aggregator.ohlcv.plan import plan, prepare_partitions
        from aggregator.ohlcv.rebuild import RebuildParams, plan_rebuild
        from aggregator.ohlcv.run import SHARDS_PER_INSTANCE, finish, outcome
        from aggregator.postgres.hook import PostgresTransactionHook
        from aggregator.postgres.transaction_group import TransactionGroup

        params, run = RebuildParams.read(context["params"]), _run(context)
        # A hook keeps the connection that it opened last, so each transaction needs its own hook.
        group = self._group = TransactionGroup(lambda: PostgresTransactionHook(self.conn_id).task_transaction(context))
        if self.shards is not None:
            return self._build(group, run, params, self.shards)
        if context["ti"].try_number > 1 and not params.is_dry_run:
            with group.transaction() as cursor:
                done = outcome(cursor, run)
            if done.is_closed:
                # The earlier try was killed after its last commit.
                self._report(context, done, {})
                return []
        with group.transaction() as cursor:
            prepare_partitions(cursor, run)
        with group.transaction() as cursor:
            shards = plan_rebuild(cursor, run, params) if params.is_rebuild else plan(cursor, run)
        if len(shards) > SHARDS_PER_INSTANCE:
            return list(chunked(shards, SHARDS_PER_INSTANCE))
        counts = self._build(group, run, params, shards)
        with group.transaction() as cursor:
            done = finish(cursor, run)
        _require_closed(context, done, None)
        self._report(context, done, counts)
        return []

    @staticmethod
    def _build(
        group: TransactionGroup, run: Run, params: RebuildParams, shards: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        from aggregator.ohlcv.aggregate import aggregate
        from aggregator.ohlcv.rebuild import rebuild
        from aggregator.ohlcv.run import Totals

        def build(shard: Mapping[str, Any]) -> Totals:
            if params.is_rebuild:
                return rebuild(group.transaction, run, params, **shard)
            return aggregate(group.transaction, run, **shard)

        totals = sum(group.run(build, shards) if shards else [], Totals())
        # The param dryRun is true by default and applies to rebuilds only. Metrics use this field instead.
        return {**asdict(totals), "dry_run": params.is_dry_run}

    def _report(self, context: Context, done: Outcome, counts: Mapping[str, Any]) -> None:
        from aggregator.ohlcv.run import key_values

        # The run log also has the bars of earlier tries, which sent no metrics. Of a dry run, it has none.
        self.totals = {**counts, **({} if counts.get("dry_run") else done.totals)}
        context["ti"].xcom_push("plan", done.plan)
        context["ti"].xcom_push("totals", self.totals)
        self.log.info("Finished %s", key_values(self.totals))

    def on_kill(self) -> None:
        """Cancel running statements and prevent further commits. Airflow calls this on SIGTERM."""
        if self._group:
            self._group.end()


def report_totals(context: Context, result: Any) -> None:  # noqa: ARG001 - the shards that are left
    """Report the counts of a run that one task instance did alone; the ``post_execute`` of its task."""
    task: Any = context["task"]
    metrics.report(context, task.totals)


class OhlcvFinishOperator(ClosingOperator):
    """Close the run log, release claims that are left, and fail if a task of the run failed.

    The task is skipped if the shards before it were skipped, because the run is closed then.

    Args:
        conn_id: Airflow connection of the database.
        **kwargs: Arguments of ``BaseOperator``.
    """

    ui_color = "#e2ecf7"

    def __init__(self, *, conn_id: str, **kwargs: Any) -> None:
        super().__init__(trigger_rule=TriggerRule.NONE_SKIPPED, **kwargs)
        self.conn_id = conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Return the totals of the run. A PermanentError names the failed task or work that was not done."""
        from aggregator.ohlcv.run import finish, key_values
        from aggregator.postgres.hook import PostgresTransactionHook

        failed = failed_tasks(context)
        failure = describe_failed(failed) if failed else None
        with PostgresTransactionHook(self.conn_id).task_transaction(context) as cursor:
            done = finish(cursor, _run(context), failure)
        _require_closed(context, done, failure)
        self.log.info("Finished %s", key_values(done.totals))
        return done.totals


def _require_closed(context: Context, done: Outcome, failure: str | None) -> None:
    """Fail with a text that says what the run has stored and what to do next, unless it is complete."""
    if done.is_closed:
        return
    from aggregator.ohlcv.run import key_values

    params = context["params"]
    is_rebuild = any(params[name] for name in ("startDate", "endDate", "symbols", "timeframes"))
    stored = key_values({name: count for name, count in done.totals.items() if count}) or "nothing"
    if not done.plan and is_rebuild:
        consequence = "Nothing was rebuilt. Fix the cause and clear this run, or start a run with other params."
    elif not done.plan:
        consequence = (
            "Nothing was claimed. The next run builds the windows that are due. If you cleared this run to build its "
            "windows again, fix the cause and clear it again."
        )
    elif is_rebuild and params["dryRun"]:
        consequence = "This was a dry run, so nothing was stored. Clear this run to start the dry run again."
    elif is_rebuild:
        consequence = f"Clear this run to continue the rebuild where it stopped. Stored so far: {stored}."
    else:
        consequence = f"Its claims were released, and the next run builds what is missing. Stored: {stored}."
    msg = f"{failure or 'Not all shards of this run were done, although no task failed.'} {consequence}"
    raise PermanentError(msg)


def _run(context: Context) -> Run:
    from aggregator.ohlcv.run import Run

    settings = OhlcvSettings.load()
    logging.getLogger("aggregator.ohlcv").setLevel(settings.log_level)
    interval = data_interval(context)
    dag: Any = context["dag"]
    dag_run: Any = context["dag_run"]
    if not isinstance(dag.timetable, OffsetCronTimetable):
        msg = f"DAG {dag.dag_id} has no OffsetCronTimetable. Nothing was done. Use OffsetCronTimetable as its schedule."
        raise PermanentError(msg)
    due = interval.end + dag.timetable.offset
    # The next run is due one interval later. The deadline may be earlier.
    available = min([interval.end - interval.start, *(alert.interval for alert in dag.deadline or ())])
    return Run(
        run_id=context["run_id"],
        data_interval_start=interval.start,
        data_interval_end=interval.end,
        as_of=due,
        settings=settings,
        repeat_until=due + available - FINISH_RESERVE,
        clears=dag_run.clear_number or 0,
    )
