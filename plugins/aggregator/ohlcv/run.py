"""A run of ``ohlcv_aggregation``: its parameters, its counts, and its entry in the run log.

The functions in ``include/sql/ohlcv/functions`` process candles and bars. Python carries only ids and counts.
``docs/products/ohlcv.md`` explains how the steps fit together.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from psycopg.types.json import Jsonb

from aggregator.core.paths import SQL
from aggregator.postgres.functions import call

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from datetime import datetime

    import psycopg
    from psycopg.rows import TupleRow

    from aggregator.core.settings import OhlcvSettings

    Cursor = psycopg.Cursor[TupleRow]
    Transaction = Callable[[], AbstractContextManager[Cursor]]

CONNECTION = "market_db"

TIMEFRAMES = ("15m", "1h", "4h", "1d")
"""Timeframes of bars, finest first. Each is derived from the one before it."""

SHARDS_PER_INSTANCE = 2
"""Shards that one task instance processes at once, each with its own connection."""

MAX_LISTED = 20
"""Symbols that a message lists. The run log and ``ops.ops_issues`` have all of them."""


@dataclass(frozen=True)
class Run:
    """Parameters that every step of a run shares.

    Attributes:
        run_id: Airflow's run id. It owns the tasks that the run claims.
        data_interval_start: Start of the data interval.
        data_interval_end: End of the data interval, exclusive.
        as_of: Time at which the run is due. It decides which windows have ended; the clock does not.
        settings: Limits and names.
        repeat_until: Clock time until which the run starts further transactions for its backlog; None: it starts none.
            This bounds how many windows the run builds. It does not decide which windows have ended.
        clears: How often the run was cleared. Distinguishes a retry from a clear. None: any plan of the run counts.
    """

    run_id: str
    data_interval_start: datetime
    data_interval_end: datetime
    as_of: datetime
    settings: OhlcvSettings
    repeat_until: datetime | None = None
    clears: int | None = 0

    @property
    def parameters(self) -> dict[str, Any]:
        """Values for the placeholders of the queries: the fields of the settings and of the run."""
        return {**self.settings.model_dump(), **vars(self)}


@dataclass(frozen=True)
class Totals:
    """Counts of what a step or a run did. `aggregator.core.metrics.COUNTERS` describes them."""

    tasks: int = 0
    bars: int = 0
    poor_bars: int = 0
    skipped_windows: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    failed: int = 0

    def __add__(self, other: Totals) -> Totals:
        """Add the counts of two steps."""
        return Totals(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


@dataclass(frozen=True)
class Outcome:
    """What a run has done since it was last cleared, as the run log has it.

    Attributes:
        plan: Counts of its plan; None: no plan was completed.
        shards_done: Planned shards that were built.
        is_closed: Whether the run was closed as a success.
        totals: Its counts, named as in `Totals`, without ``tasks``.
    """

    plan: dict[str, Any] | None
    shards_done: int
    is_closed: bool
    totals: dict[str, int]


def execute(cursor: Cursor, file: str, parameters: Mapping[str, Any]) -> Cursor:
    """Execute a query, named by its path below ``include/sql``. Return the cursor with the rows."""
    return cursor.execute((SQL / file).read_text(), parameters)


def start(cursor: Cursor, run: Run) -> bool:
    """Open the run's entry in the run log. Return whether the run had finished before: then it was cleared."""
    ((_, was_finished),) = call(
        cursor,
        "ops.ops_runlog_start",
        p_job_name=run.settings.job_name,
        p_env_name=run.settings.env_name,
        p_run_id=run.run_id,
        p_as_of=run.as_of,
    )
    return bool(was_finished)


def checkpoint(cursor: Cursor, run: Run, name: str, **details: Any) -> None:
    """Record a step and its counts in the run log, in the transaction of the step."""
    call(
        cursor,
        "ops.ops_runlog_checkpoint",
        p_job_name=run.settings.job_name,
        p_run_id=run.run_id,
        p_name=name,
        p_details=Jsonb({"clears": run.clears, **details}),
    )


def outcome(cursor: Cursor, run: Run) -> Outcome:
    """Read what the run has done since it was last cleared."""
    row = execute(cursor, "ohlcv/queries/run_outcome.sql", run.parameters).fetchone()
    return Outcome(*row) if row else Outcome(None, 0, is_closed=False, totals={})


def finish(cursor: Cursor, run: Run, failure: str | None = None) -> Outcome:
    """Close the run's entry in the run log, release the tasks that the run still holds, and prune the run log.

    Args:
        cursor: Cursor in one transaction.
        run: The run.
        failure: Sentence that names the failed task; None if no task failed.

    Returns:
        The outcome. It is closed if every planned shard was built.
    """
    error = f"Run {run.run_id} failed before this task was done. The next run takes it over."
    claims = {**run.parameters, "first": None, "last": None, "error": error}
    ((released,),) = execute(cursor, "ohlcv/queries/release_tasks.sql", claims)
    # Without a failure, the plan was made in this clear, or a clear of failed tasks only has kept it.
    done = outcome(cursor, run if failure else replace(run, clears=None))
    planned = done.plan["shards"] if done.plan else 0
    is_complete = not failure and done.plan is not None and done.shards_done >= planned and not released
    steps = f"{planned} shards planned, {done.shards_done} done, {released} tasks released"
    call(
        cursor,
        "ops.ops_runlog_finish",
        p_job_name=run.settings.job_name,
        p_run_id=run.run_id,
        p_status="success" if is_complete else "failed",
        p_totals=Jsonb(done.totals),
        p_error=None if is_complete else " ".join(filter(None, [failure, steps])),
    )
    call(cursor, "ops.ops_runlog_prune", p_job_name=run.settings.job_name, p_keep=run.settings.ops_runlog_keep)
    return replace(done, is_closed=is_complete)


def key_values(counts: Mapping[str, object]) -> str:
    """Format counts for a log line, for example ``due=8 claimed=3``."""
    return " ".join(f"{name}={count}" for name, count in counts.items())
