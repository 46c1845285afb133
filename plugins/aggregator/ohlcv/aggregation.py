"""One run of ``ohlcv_aggregation``, step by step (spec: OHLCV).

Everything about candles and bars is done by the functions in ``include/sql/ohlcv/functions``; only ids and counts come
here. How the steps fit together, and why nothing is lost between them, is in ``docs/products/ohlcv.md``.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime, time, timedelta
from math import ceil
from typing import TYPE_CHECKING, Any, Literal, Self

import psycopg
import tenacity
from more_itertools import chunked, divide
from psycopg.types.json import Jsonb
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from aggregator.core.errors import TransientError, WrongParamsError
from aggregator.core.params import Day, problems
from aggregator.core.paths import SQL
from aggregator.core.text import listed
from aggregator.postgres.hook import describe
from aggregator.postgres.upsert import blames_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from psycopg.rows import TupleRow

    from aggregator.core.settings import OhlcvSettings

    Cursor = psycopg.Cursor[TupleRow]
    Transaction = Callable[[], AbstractContextManager[Cursor]]

log = logging.getLogger(__name__)

CONNECTION = "market_db"

TIMEFRAMES = ("15m", "1h", "4h", "1d")
"""Of bars, the finest first: each is made of the one before it."""

NAMED_AT_MOST = 20
"""Failed symbols that the log names; the run log and ``ops.ops_issues`` have them all."""

WINDOWS_A_SHARD = 50_000
"""Windows of candles of a backlog in one transaction: some seconds of work."""

SYMBOLS_TO_DIVIDE = 400
"""From here on two shards are done sooner than one, though PostgreSQL plans their statements twice."""

SHARDS_AT_MOST = 64

SHARDS_THAT_REPEAT = 16
"""Up to so many shards, each works while the run has time. With more, others would wait for a free worker."""

SHARDS_AT_ONCE = 2
"""Shards of one task instance, each with a connection of its own; also all shards of a rebuild."""

SYMBOLS_A_CHUNK = 50
DAYS_A_CHUNK = 31
"""What a rebuild does in one transaction: some seconds of work."""

LONG_REBUILD = timedelta(days=366)
"""A longer rebuild starts with the first candle of its symbols, not with empty chunks."""

BUSY_FOR = timedelta(minutes=2)
"""For how long a rebuild waits for a tick that works on the same tasks."""

_UNLIMITED = 2**31 - 1


@dataclass(frozen=True)
class Run:
    """What every step of a run is told.

    Attributes:
        run_id: Owner of the tasks it claims.
        data_interval_start: Beginning of the run's interval.
        data_interval_end: End of it.
        as_of: The run's own moment, which decides which windows are over; the clock has no part in it.
        settings: Limits and names.
        repeat_until: Until when, by the clock, the run builds windows that did not fit in its first transactions; None:
            not at all. This decides how many windows are built in this run, not which ones are over.
    """

    run_id: str
    data_interval_start: datetime
    data_interval_end: datetime
    as_of: datetime
    settings: OhlcvSettings
    repeat_until: datetime | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """For the placeholders of the statements."""
        settings = self.settings
        return {
            "run_id": self.run_id,
            "data_interval_start": self.data_interval_start,
            "data_interval_end": self.data_interval_end,
            "as_of": self.as_of,
            "job_name": settings.job_name,
            "env_name": settings.env_name,
            "max_tasks": settings.max_tasks_per_run,
            "max_windows": settings.max_windows_per_task,
            "seconds": settings.running_stale_seconds,
            "max_hard_fails": settings.auto_disable_hard_fails,
            "derivation_version": settings.agg_derivation_version,
            "keep": settings.ops_runlog_keep,
        }


@dataclass(frozen=True)
class Totals:
    """What was done.

    Attributes:
        tasks: Tasks that were worked on and released.
        bars: Bars that were built, stored anew or not.
        poor_bars: Those of quality 0 or -1.
        skipped_windows: Windows without a candle that were passed.
        inserted: Bars that are new.
        updated: Bars that differ from what was stored.
        unchanged: Bars that are as they were, and were not written.
        deleted: Bars whose candles were deleted.
        failed: Tasks that failed hard.
    """

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
        """Both together."""
        return Totals(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


class RebuildParams(BaseModel):
    """The params of a run; without a day it is no rebuild.

    Attributes:
        start_date: First UTC day. Given alone, it is the last one, too.
        end_date: Last UTC day. Given alone, it is the first one, too.
        symbols: Of which symbols; null: all.
        timeframes: Of which timeframes; null: all. What they change in coarser ones follows with the next run.
        dry_run: Do everything, report what it changes, and roll it back.
    """

    model_config = ConfigDict(alias_generator=to_camel, frozen=True)

    start_date: Day = None
    end_date: Day = None
    symbols: list[str] | None = Field(None, min_length=1)
    timeframes: list[Literal["15m", "1h", "4h", "1d"]] | None = Field(None, min_length=1)
    dry_run: bool = True

    @classmethod
    def read(cls, params: Mapping[str, Any]) -> Self:
        """The params of a run, checked.

        Args:
            params: As Airflow has them.

        Raises:
            WrongParamsError: They are wrong; the text names each.
        """
        try:
            return cls.model_validate(dict(params))
        except ValidationError as error:
            msg = f"The params of this run are wrong: {problems(error.errors())}. Nothing was done."
            raise WrongParamsError(msg) from None

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        first, last = self.start_date or self.end_date, self.end_date or self.start_date
        if first and last and first > last:
            msg = f"startDate {first} is after endDate {last}"
            raise ValueError(msg)
        today = datetime.now(UTC).date()
        if last and last > today:
            msg = f"{'endDate' if self.end_date else 'startDate'} {last} is in the future; today is {today} in UTC"
            raise ValueError(msg)
        if not first and (self.symbols or self.timeframes):
            msg = "a rebuild of symbols or timeframes needs startDate"
            raise ValueError(msg)
        return self

    @property
    def wanted(self) -> bool:
        """Whether the run is a rebuild."""
        return bool(self.start_date or self.end_date)

    @property
    def range(self) -> tuple[datetime, datetime]:
        """The days of a rebuild as ``[start, end)``."""
        first, last = self.start_date or self.end_date, self.end_date or self.start_date
        if not first or not last:
            msg = "The run has no days to rebuild."
            raise ValueError(msg)
        return datetime.combine(first, time(), UTC), datetime.combine(last, time(), UTC) + timedelta(days=1)


def prepare_partitions(cursor: Cursor, run: Run) -> None:
    """Make the partitions of the months ahead, and drop those behind the retention.

    Args:
        cursor: In a transaction of its own: it locks what ingest needs, for a moment.
        run: The run.
    """
    days = run.settings.candle_retention_days
    parameters = {**run.parameters, "days": days}
    cursor.execute(_statement("ohlcv/queries/add_partitions.sql"), parameters)
    if days is not None:
        ((dropped,),) = cursor.execute(_statement("ohlcv/queries/drop_partitions.sql"), parameters)
        if dropped:
            log.info("Candles behind the retention of %d days were dropped: %s", days, ", ".join(dropped))


def plan(cursor: Cursor, run: Run) -> list[dict[str, Any]]:
    """Open the run log, find out what has to be done, and claim it.

    A run that had finished before has been cleared: the windows that ended in its interval are built again.

    Args:
        cursor: In one transaction.
        run: The run.

    Returns:
        What :func:`aggregate` is told, for each transaction to follow; none if nothing is due.
    """

    def number(file: str) -> Any:
        ((value,),) = cursor.execute(_statement(file), run.parameters).fetchall()
        return value

    was_finished = number("ohlcv/queries/start_run.sql")
    counts = {
        "synchronised": number("ohlcv/queries/sync_tasks.sql"),
        "recovered": number("ohlcv/queries/recover_stale_locks.sql"),
        "stale": number("ohlcv/queries/drain_candle_changes.sql"),
        "rebuilt": number("ohlcv/queries/mark_run_stale.sql") if was_finished else 0,
    }
    ((claimed, due),) = cursor.execute(_statement("ohlcv/queries/claim_due_tasks.sql"), run.parameters).fetchall()
    ((symbols, windows),) = cursor.execute(_statement("ohlcv/queries/claimed_work.sql"), run.parameters).fetchall()
    symbols_a_shard = run.settings.ohlcv_symbols_per_shard
    if len(symbols) >= SYMBOLS_TO_DIVIDE:
        symbols_a_shard = min(symbols_a_shard, ceil(len(symbols) / SHARDS_AT_ONCE))
    wanted = max(ceil(len(symbols) / symbols_a_shard), ceil(windows / WINDOWS_A_SHARD))
    shards = min(wanted, len(symbols), SHARDS_AT_MOST)
    done = {**counts, "due": due, "claimed": claimed, "symbols": len(symbols), "shards": shards}
    checkpoint(cursor, run, "planned", **done)
    log.info("Planned as_of=%s %s", run.as_of, " ".join(f"{name}={count}" for name, count in done.items()))
    if due > run.settings.max_tasks_per_run:
        log.warning(
            "%d of %d due tasks wait for later runs. Raise MAX_TASKS_PER_RUN (%d), or they may wait indefinitely.",
            due - claimed,
            due,
            run.settings.max_tasks_per_run,
        )
    if counts["stale"] is None:
        log.warning("Somebody holds a claim in an open transaction. Changed candles wait for the next run.")
    parts = [list(part) for part in divide(shards, symbols)] if shards else []
    return [{"shard": shard, "of": shards, "first": part[0], "last": part[-1]} for shard, part in enumerate(parts)]


def plan_rebuild(cursor: Cursor, run: Run, params: RebuildParams) -> list[dict[str, int]]:
    """Open the run log of a rebuild, and share its symbols out.

    Args:
        cursor: In one transaction.
        run: The run.
        params: What to build.

    Returns:
        What :func:`rebuild` is told, for each shard to follow: at most `SHARDS_AT_ONCE`.

    Raises:
        WrongParamsError: One of the symbols has no tasks.
    """
    cursor.execute(_statement("ohlcv/queries/start_run.sql"), run.parameters)
    cursor.execute(_statement("ohlcv/queries/sync_tasks.sql"))
    symbols = _symbols(cursor, params)
    if unknown := sorted(set(params.symbols or ()) - set(symbols)):
        names = listed(map(repr, unknown), NAMED_AT_MOST)
        msg = f"There are no tasks of the symbols {names}. Nothing was built. Correct them, or insert the assets."
        raise WrongParamsError(msg)
    shards = min(ceil(len(symbols) / SYMBOLS_A_CHUNK), SHARDS_AT_ONCE)
    checkpoint(cursor, run, "planned", shards=shards)
    return [{"shard": shard, "of": shards} for shard in range(shards)]


def _symbols(cursor: Cursor, params: RebuildParams) -> list[str]:
    return [
        symbol for (symbol,) in cursor.execute(_statement("ohlcv/queries/symbols.sql"), {"symbols": params.symbols})
    ]


def aggregate(
    transaction: Transaction, run: Run, *, shard: int, of: int, first: str | None = None, last: str | None = None
) -> Totals:
    """Build what the run has claimed, each timeframe by one statement, and release the tasks.

    One transaction builds at most `MAX_WINDOWS_PER_TASK` windows of a task. Tasks that have more stay claimed, and
    another transaction follows, as many as fit before ``run.repeat_until``. At least one is done.

    A try that finds tasks of an earlier try does them; a task whose lock was taken over is left alone.

    Args:
        transaction: Opens a transaction.
        run: The run.
        shard: Number of the shard.
        of: How many shards there are.
        first: Its first symbol; None: that of all.
        last: Its last symbol; None: that of all.

    Returns:
        What was done.

    Raises:
        psycopg.Error: PostgreSQL could not do it at all; nothing of that transaction is stored.
    """
    tasks = {**run.parameters, "first": first, "last": last}
    totals, transactions, longest, has_more = Totals(), 0, timedelta(), True
    while has_more:
        began = datetime.now(UTC)
        with transaction() as cursor:
            built, has_more = _aggregate_claimed(cursor, run, tasks)
            # Tasks that stayed claimed have been counted.
            totals += replace(built, tasks=0) if transactions else built
            transactions += 1
            longest = max(longest, datetime.now(UTC) - began)
            is_last = not has_more or of > SHARDS_THAT_REPEAT or not _is_time_for_another(run, longest)
            if is_last:
                details = {**asdict(totals), "transactions": transactions, "has_more": has_more}
                if has_more:
                    cursor.execute(_statement("ohlcv/queries/hand_over_tasks.sql"), tasks)
                checkpoint(cursor, run, "aggregated", shard=shard, **details)
        if is_last:
            shown = " ".join(f"{name}={value}" for name, value in details.items())
            log.info("Shard %d of %d: %s", shard + 1, of, shown)
            break
        longest = max(longest, datetime.now(UTC) - began)
    return totals


def _is_time_for_another(run: Run, longest: timedelta) -> bool:
    return run.repeat_until is not None and datetime.now(UTC) + longest < run.repeat_until


def _aggregate_claimed(cursor: Cursor, run: Run, tasks: Mapping[str, Any]) -> tuple[Totals, bool]:
    """Build the bars of claimed tasks; also whether some have more windows, and stay claimed."""
    totals, has_more = Totals(), False
    for timeframe, symbols in cursor.execute(_statement("ohlcv/queries/claimed_symbols.sql"), tasks).fetchall():
        built, timeframe_has_more = _build(cursor, run, timeframe, symbols)
        totals += built
        has_more |= timeframe_has_more
    return totals, has_more


def _build(cursor: Cursor, run: Run, timeframe: str, symbols: Sequence[str], **different: Any) -> tuple[Totals, bool]:
    """Build the bars of a timeframe; what PostgreSQL refuses is bisected to isolate it. Also whether there is more."""
    parameters = {**run.parameters, "timeframe": timeframe, "symbols": symbols, **different}
    try:
        row = _aggregate(cursor, parameters)
    except psycopg.Error as error:
        if not blames_rows(error):
            raise
        if len(symbols) > 1:
            half = len(symbols) // 2
            parts = [_build(cursor, run, timeframe, part, **different) for part in (symbols[:half], symbols[half:])]
            return sum((totals for totals, _ in parts), Totals()), any(has_more for _, has_more in parts)
        reason = describe(error)
        cursor.execute(_statement("ohlcv/queries/fail_task.sql"), {**parameters, "symbol": symbols[0], "error": reason})
        log.warning("FAILED: %s of %r: %s", timeframe, symbols[0], reason)
        return Totals(tasks=1, failed=1), False
    *counts, failed, has_more = row
    if failed:
        log.warning(
            "FAILED: %s of %s: candles that make no bar; ops.ops_issues and ohlcv.frontier have the windows.",
            timeframe,
            listed(map(repr, failed), NAMED_AT_MOST),
        )
    return replace(Totals(*counts), failed=len(failed)), has_more


@tenacity.retry(
    retry=tenacity.retry_if_exception_type(psycopg.errors.UniqueViolation),
    stop=tenacity.stop_after_attempt(3),
    reraise=True,
)
def _aggregate(cursor: Cursor, parameters: Mapping[str, Any]) -> tuple[Any, ...]:
    """A bar that somebody else stores in the middle of the statement is a unique violation; another try sees it."""
    with cursor.connection.transaction():
        (row,) = cursor.execute(_statement("ohlcv/queries/aggregate.sql"), parameters).fetchall()
    return row


def rebuild(transaction: Transaction, run: Run, params: RebuildParams, *, shard: int, of: int) -> Totals:
    """Build the windows of some days again, in chunks of one transaction each.

    Another try of the task, and a clear of a run that failed, continue where the last one stopped.

    Args:
        transaction: Opens a transaction.
        run: The run.
        params: What to build, and whether to keep it.
        shard: Number of the shard.
        of: How many shards there are.

    Returns:
        What was done, or what would be.

    Raises:
        TransientError: A tick works on the same tasks for longer than `BUSY_FOR`.
    """
    with transaction() as cursor:
        symbols = _symbols(cursor, params)
        progress: dict[str, datetime] = dict(
            cursor.execute(_statement("ohlcv/queries/rebuilt_until.sql"), run.parameters).fetchall()
        )
        groups = [
            (group, _range(cursor, params, group)) for group in list(chunked(symbols, SYMBOLS_A_CHUNK))[shard::of]
        ]
    chunks = list(_chunks(groups, params, progress))
    totals = Totals()
    for number, chunk in enumerate(chunks, start=1):
        totals += _rebuild_chunk(transaction, run, params, chunk)
        log.info("Shard %d of %d, chunk %d of %d: %s", shard + 1, of, number, len(chunks), asdict(totals))
    with transaction() as cursor:
        checkpoint(cursor, run, "aggregated", shard=shard, dry_run=params.dry_run, **asdict(totals))
    return totals


def _range(cursor: Cursor, params: RebuildParams, symbols: Sequence[str]) -> tuple[datetime, datetime]:
    """The days of a rebuild for which symbols have anything to build: a start long ago is no work."""
    start, end = params.range
    if end - start <= LONG_REBUILD:
        return start, end
    given = {
        "symbols": symbols,
        "starts_at": start,
        "ends_at": end,
        "timeframes": list(params.timeframes or TIMEFRAMES),
    }
    ((first,),) = cursor.execute(_statement("ohlcv/queries/rebuild_start.sql"), given).fetchall()
    return first, end


def _chunks(
    groups: Iterable[tuple[Sequence[str], tuple[datetime, datetime]]],
    params: RebuildParams,
    progress: Mapping[str, datetime],
) -> Iterator[dict[str, Any]]:
    """What is left to build, the days of a group of symbols in order."""
    for symbols, (start, end) in groups:
        # Groups change when symbols are added. Building a window twice changes nothing.
        first = min(progress.get(symbol, start) for symbol in symbols)
        while first < end:
            last = min(first + timedelta(days=DAYS_A_CHUNK), end)
            yield {
                "symbols": symbols,
                "starts_at": first,
                "ends_at": last,
                "timeframes": list(params.timeframes or TIMEFRAMES),
            }
            first = last


@tenacity.retry(
    retry=tenacity.retry_if_exception_type(TransientError),
    wait=tenacity.wait_fixed(2),
    stop=tenacity.stop_after_delay(BUSY_FOR),
    reraise=True,
)
def _rebuild_chunk(transaction: Transaction, run: Run, params: RebuildParams, chunk: dict[str, Any]) -> Totals:
    totals = Totals()
    with transaction() as cursor:
        with cursor.connection.transaction(force_rollback=params.dry_run):
            given = {**run.parameters, **chunk}
            ((claimed, wanted),) = cursor.execute(_statement("ohlcv/queries/claim_tasks.sql"), given).fetchall()
            if claimed < wanted:
                msg = f"{wanted - claimed} tasks of the symbols to rebuild are worked on by another run."
                raise TransientError(msg)
            cursor.execute(_statement("ohlcv/queries/mark_range_stale.sql"), given)
            every = {**run.parameters, "first": None, "last": None}
            for timeframe, symbols in cursor.execute(_statement("ohlcv/queries/claimed_symbols.sql"), every).fetchall():
                totals += _build(cursor, run, timeframe, symbols, as_of=None, max_windows=_UNLIMITED)[0]
        if not params.dry_run:
            cursor.execute(_statement("ohlcv/queries/keep_progress.sql"), given)
    return totals


def finish(cursor: Cursor, run: Run, failure: str | None = None) -> dict[str, Any]:
    """Close the run log, whatever happened before, and free what is still claimed.

    Args:
        cursor: In one transaction.
        run: The run.
        failure: Which task of the run failed; None if none did.

    Returns:
        The run's totals, and ``complete``: whether every step was done.
    """
    ((released,),) = cursor.execute(_statement("ohlcv/queries/release_tasks.sql"), run.parameters).fetchall()
    outcome = cursor.execute(_statement("ohlcv/queries/run_outcome.sql"), run.parameters).fetchone()
    if outcome is None:
        return {"complete": False}
    planned, done, *counts = outcome
    names = [field.name for field in fields(Totals) if field.name != "tasks"]
    totals = dict(zip(names, counts, strict=True))
    complete = not failure and planned is not None and done >= planned and not released
    steps = f"{planned or 0} shards planned, {done} done, {released} tasks released"
    cursor.execute(
        _statement("ohlcv/queries/finish_run.sql"),
        {
            **run.parameters,
            "status": "success" if complete else "failed",
            "totals": Jsonb(totals),
            "error": None if complete else " ".join(filter(None, [failure, steps])),
        },
    )
    return {**totals, "complete": complete}


def checkpoint(cursor: Cursor, run: Run, name: str, **details: Any) -> None:
    """Note in the run log how far the run is.

    Args:
        cursor: In the transaction of what was done.
        run: The run.
        name: Of the step.
        details: Counts.
    """
    given = {**run.parameters, "name": name, "details": Jsonb(details)}
    cursor.execute(_statement("ohlcv/queries/checkpoint.sql"), given)


def _statement(file: str) -> str:
    return (SQL / file).read_text()
