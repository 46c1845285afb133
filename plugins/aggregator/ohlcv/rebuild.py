"""A rebuild: a run whose params name the UTC days to build again."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, time, timedelta
from math import ceil
from typing import TYPE_CHECKING, Any, Literal, Self

import tenacity
from more_itertools import chunked
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from aggregator.core.errors import TransientError, WrongParamsError
from aggregator.core.params import Day, problems
from aggregator.core.text import listed
from aggregator.ohlcv.aggregate import build
from aggregator.ohlcv.run import (
    MAX_LISTED,
    SHARDS_PER_INSTANCE,
    TIMEFRAMES,
    Totals,
    checkpoint,
    execute,
    key_values,
    start,
)
from aggregator.postgres.functions import call

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from aggregator.ohlcv.run import Cursor, Run, Transaction

log = logging.getLogger(__name__)

SYMBOLS_PER_CHUNK = 50
DAYS_PER_CHUNK = 31
"""A chunk is one transaction of a rebuild: a few seconds of work."""

LONG_REBUILD = timedelta(days=366)
"""A longer rebuild starts at the first candle of its symbols and skips the empty chunks before it."""

BUSY_TIMEOUT = timedelta(minutes=2)
"""Time that a rebuild waits for another run that processes the same tasks."""

_UNLIMITED = 2**31 - 1


class RebuildParams(BaseModel):
    """Params of a run. A run without a day is not a rebuild.

    Attributes:
        start_date: First UTC day; if None, ``end_date`` is the only day.
        end_date: Last UTC day, inclusive; if None, ``start_date`` is the only day.
        symbols: Symbols to rebuild; None: all.
        timeframes: Timeframes to rebuild; None: all. The next run rebuilds coarser timeframes that depend on them.
        dry_run: Report the changes and roll them back.
    """

    model_config = ConfigDict(alias_generator=to_camel, frozen=True)

    start_date: Day = None
    end_date: Day = None
    symbols: list[str] | None = Field(None, min_length=1)
    timeframes: list[Literal["15m", "1h", "4h", "1d"]] | None = Field(None, min_length=1)
    dry_run: bool = True

    @classmethod
    def read(cls, params: Mapping[str, Any]) -> Self:
        """Validate the params of a run. The error names each wrong one."""
        try:
            return cls.model_validate(dict(params))
        except ValidationError as error:
            msg = f"The params of this run are wrong: {problems(error.errors())}. Nothing was done. Start a new run."
            raise WrongParamsError(msg) from None

    @model_validator(mode="after")
    def _check_days(self) -> Self:
        first, last = self._days
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
    def _days(self) -> tuple[Day, Day]:
        return self.start_date or self.end_date, self.end_date or self.start_date

    @property
    def is_rebuild(self) -> bool:
        """Whether the run is a rebuild."""
        return self._days != (None, None)

    @property
    def is_dry_run(self) -> bool:
        """Whether the run is a rebuild that stores nothing."""
        return self.is_rebuild and self.dry_run

    @property
    def interval(self) -> tuple[datetime, datetime]:
        """The days of a rebuild as a half-open interval ``[start, end)``."""
        first, last = self._days
        if not first or not last:
            msg = "The run has no days to rebuild."
            raise ValueError(msg)
        return datetime.combine(first, time(), UTC), datetime.combine(last, time(), UTC) + timedelta(days=1)


@dataclass(frozen=True)
class Chunk:
    """Work of one transaction of a rebuild: some tasks, and the range ``[starts_at, ends_at)``."""

    symbols: list[str]
    timeframes: list[str]
    starts_at: datetime
    ends_at: datetime


def plan_rebuild(cursor: Cursor, run: Run, params: RebuildParams) -> list[dict[str, Any]]:
    """Open the run log of a rebuild, and return the keyword arguments of :func:`rebuild` for each shard.

    There are at most `SHARDS_PER_INSTANCE`. A symbol without tasks is a wrong param.
    """
    start(cursor, run)
    call(cursor, "ohlcv.sync_tasks")
    symbols = _symbols(cursor, params)
    if unknown := sorted(set(params.symbols or ()) - set(symbols)):
        names = listed(map(repr, unknown), MAX_LISTED)
        msg = (
            f"There are no tasks of the symbols {names}. Nothing was built. Correct the symbols, or insert them into "
            "ohlcv.assets. Then start a new run."
        )
        raise WrongParamsError(msg)
    shards = min(ceil(len(symbols) / SYMBOLS_PER_CHUNK), SHARDS_PER_INSTANCE)
    checkpoint(cursor, run, "planned", shards=shards)
    log.info("Planned rebuild symbols=%d shards=%d dry_run=%s", len(symbols), shards, params.dry_run)
    return [{"shard": shard, "of": shards} for shard in range(shards)]


def rebuild(transaction: Transaction, run: Run, params: RebuildParams, *, shard: int, of: int) -> Totals:
    """Build the windows of some days again, one chunk in each transaction.

    A retry of the task, or a clear of the failed run, continues after the last stored chunk. A dry run restarts. If
    another run processes the same tasks for longer than `BUSY_TIMEOUT`, the rebuild fails with a transient error.
    """
    with transaction() as cursor:
        chunks = list(_remaining_chunks(cursor, run, params, shard, of))
    totals = Totals()
    for number, chunk in enumerate(chunks, start=1):
        totals += _rebuild_chunk(transaction, run, chunk, dry_run=params.dry_run)
        done = {"shard": shard, "of": of, "chunk": number, "chunks": len(chunks), "dry_run": params.dry_run}
        log.info("Rebuilt %s", key_values(done | asdict(totals)))
    with transaction() as cursor:
        checkpoint(cursor, run, "aggregated", shard=shard, dry_run=params.dry_run, **asdict(totals))
    return totals


def _symbols(cursor: Cursor, params: RebuildParams) -> list[str]:
    return [symbol for (symbol,) in execute(cursor, "ohlcv/queries/symbols.sql", {"symbols": params.symbols})]


def _remaining_chunks(cursor: Cursor, run: Run, params: RebuildParams, shard: int, of: int) -> Iterator[Chunk]:
    """The chunks of a shard that are not stored yet, for each group of symbols in order of time."""
    progress: dict[str, datetime] = dict(execute(cursor, "ohlcv/queries/rebuilt_until.sql", run.parameters).fetchall())
    timeframes: list[str] = list(params.timeframes or TIMEFRAMES)
    groups = list(chunked(_symbols(cursor, params), SYMBOLS_PER_CHUNK))[shard::of]
    _, end = params.interval
    for symbols in groups:
        first = _first_day(cursor, params, symbols, timeframes)
        # Groups change when symbols are added. Building a window twice changes nothing.
        starts_at = min(progress.get(symbol, first) for symbol in symbols)
        while starts_at < end:
            ends_at = min(starts_at + timedelta(days=DAYS_PER_CHUNK), end)
            yield Chunk(symbols, timeframes, starts_at, ends_at)
            starts_at = ends_at


def _first_day(cursor: Cursor, params: RebuildParams, symbols: Sequence[str], timeframes: Sequence[str]) -> datetime:
    start, end = params.interval
    if end - start <= LONG_REBUILD:
        return start
    scope = {"symbols": symbols, "timeframes": timeframes, "starts_at": start, "ends_at": end}
    first: datetime
    ((first,),) = execute(cursor, "ohlcv/queries/rebuild_start.sql", scope)
    return first


@tenacity.retry(
    retry=tenacity.retry_if_exception_type(TransientError),
    wait=tenacity.wait_fixed(2),
    stop=tenacity.stop_after_delay(BUSY_TIMEOUT),
    reraise=True,
)
def _rebuild_chunk(transaction: Transaction, run: Run, chunk: Chunk, *, dry_run: bool) -> Totals:
    parameters = {**run.parameters, **asdict(chunk), "first": None, "last": None}
    totals = Totals()
    with transaction() as cursor:
        with cursor.connection.transaction(force_rollback=dry_run):
            ((claimed, wanted),) = execute(cursor, "ohlcv/queries/claim_tasks.sql", parameters)
            if claimed < wanted:
                msg = (
                    f"Another run is processing {wanted - claimed} of the tasks to rebuild. This chunk was not stored; "
                    "the task is retried. Earlier chunks are stored, except in a dry run."
                )
                raise TransientError(msg)
            for timeframe in chunk.timeframes:
                call(
                    cursor,
                    "ohlcv.mark_stale",
                    p_symbols=chunk.symbols,
                    p_timeframe=timeframe,
                    p_from=chunk.starts_at,
                    p_to=chunk.ends_at,
                )
            for timeframe, symbols in execute(cursor, "ohlcv/queries/claimed_symbols.sql", parameters).fetchall():
                totals += build(cursor, run, timeframe, symbols, as_of=None, max_windows_per_task=_UNLIMITED)[0]
        if not dry_run:
            execute(cursor, "ohlcv/queries/keep_progress.sql", parameters)
    return totals
