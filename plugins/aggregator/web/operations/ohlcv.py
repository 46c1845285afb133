"""Market data: bars, coverage, tasks and runs of ``ohlcv_aggregation``."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from http import HTTPStatus
from itertools import pairwise
from math import ceil
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query

from aggregator.core.http import Camel
from aggregator.ohlcv.run import CONNECTION
from aggregator.web.operations import access
from aggregator.web.operations.database import Reader, ReadError, database
from aggregator.web.operations.params import (
    CellRange,
    Items,
    Number,
    PageOf,
    Search,
    Text,
    Time,
    invalid,
)

DEFAULT_BARS = 500
MAX_BARS = 2000
"""Longest range of bars, in windows."""

Timeframe = Literal["15m", "1h", "4h", "1d"]
Status = Literal["idle", "running", "disabled", "hard_failed"]


class Symbol(Camel):
    """A symbol of the asset registry."""

    symbol: str
    base_timeframe: str
    active: bool
    mandatory: bool
    timeframes: list[str]


class OpenBar(Camel):
    """A bar. ``time`` is the start of its window, in seconds since 1970."""

    time: int
    open: Number
    high: Number
    low: Number
    close: Number
    volume: Number
    trades: int | None
    candles: int
    expected_candles: int


class Bar(OpenBar):
    """A stored bar."""

    vwap: Number
    quality: int


class Gap(Camel):
    """Windows in a row without a bar, in seconds since 1970; the end is exclusive."""

    start: int
    end: int
    windows: int


class Bars(Camel):
    """Bars of a symbol in a range, their gaps, and the bar of the window that is not over.

    Attributes:
        first: Newest and oldest stored bar of the symbol and timeframe, in and outside the range.
        last: See ``first``.
    """

    symbol: str
    timeframe: str
    size_seconds: int
    base_timeframe: str
    start: datetime
    end: datetime
    first: datetime | None
    last: datetime | None
    bars: list[Bar]
    gaps: list[Gap]
    open: OpenBar | None


class SymbolCoverage(Camel):
    """Candles of a symbol, one element for each day.

    Attributes:
        seen: Candles in bars; None if nothing is known of the day.
        expected: Candles of the day, or of its part that is built.
    """

    symbol: str
    base_timeframe: str
    seen: list[int | None]
    expected: list[int]


class Coverage(Items[SymbolCoverage]):
    """Candles of symbols by UTC day."""

    days: list[date]


class Task(Camel):
    """A task: a symbol and a timeframe.

    Attributes:
        lag_seconds: Source data that is not in bars.
        overdue_seconds: For how long the next window could have been built.
        age_seconds: Time since the end of the built data.
        hard_fails: Permanent errors in a row.
    """

    symbol: str
    timeframe: str
    status: str
    enabled: bool
    mandatory: bool
    cursor: datetime | None
    newest_source: datetime | None
    lag_seconds: Number
    overdue_seconds: Number
    waits_for: str
    age_seconds: Number
    hard_fails: int
    last_error: str | None
    last_success_at: datetime | None
    last_attempt_at: datetime | None
    next_run_at: datetime | None
    total_runs: int
    total_bars: int
    total_poor_bars: int


class Tasks(Items[Task]):
    """Tasks, and the number of tasks of each status."""

    statuses: dict[str, int]


class RunLog(Camel):
    """A run in the run log. Counts that it has not reached are None."""

    run_id: str
    kind: str
    status: str
    as_of: datetime | None
    started_at: datetime
    finished_at: datetime | None
    seconds: Number
    due: int | None
    claimed: int | None
    symbols: int | None
    bars: int | None
    poor_bars: int | None
    inserted: int | None
    updated: int | None
    unchanged: int | None
    deleted: int | None
    failed: int | None
    error: str | None


router = APIRouter(prefix="/ohlcv", tags=["market data"], dependencies=[access.dag("ohlcv_aggregation")])
_database = database(CONNECTION)


@router.get("/symbols")
async def read_symbols(page: PageOf, search: Search = "") -> Items[Symbol]:
    """List symbols by name."""
    return await _database.read(
        lambda reader: page.items(reader, Symbol, "ohlcv/queries/operations_symbols.sql", search=search)
    )


@router.get("/bars")
async def read_bars(
    symbol: Text,
    timeframe: Timeframe = "15m",
    start: Annotated[Time, Query(description="Default: 500 windows before the end.")] = None,
    end: Annotated[Time, Query(description="Exclusive. Default: now.")] = None,
) -> Bars:
    """Read the bars of a symbol in a range of at most 2,000 windows."""
    now = datetime.now(UTC)

    def read(reader: Reader) -> Bars:
        series = reader.row("ohlcv/queries/operations_series.sql", symbol=symbol, timeframe=timeframe)
        if not series:
            detail = f"There is no symbol {symbol!r} in ohlcv.assets. Choose one of the list."
            raise ReadError(HTTPStatus.NOT_FOUND, "not_found", detail)
        size = timedelta(seconds=series["size_seconds"])
        try:
            until = (end or now).astimezone(UTC)
            since = start.astimezone(UTC) if start else until - DEFAULT_BARS * size
        except OverflowError:
            raise invalid("end", "is outside the calendar") from None
        if not timedelta() < until - since <= MAX_BARS * size:
            raise invalid("start", f"must be 1 to {MAX_BARS} windows before end")
        parameters: dict[str, Any] = {"symbol": symbol, "timeframe": timeframe}
        bars = reader.rows("ohlcv/queries/operations_bars.sql", **parameters, start=since, end=until)
        open_bar = reader.row("ohlcv/queries/operations_open_bar.sql", **parameters) if until >= now else {}
        return Bars(
            **parameters,
            **series,
            start=since,
            end=until,
            bars=[Bar(**bar) for bar in bars],
            gaps=_gaps([bar["time"] for bar in bars], series, since, until),
            open=OpenBar(**open_bar) if open_bar else None,
        )

    return await _database.read(read)


def _gaps(times: list[int], series: dict[str, Any], start: datetime, end: datetime) -> list[Gap]:
    """Find the windows without a bar from the first to the last bar of the symbol, inside the range."""
    if series["first"] is None:
        return []
    size = series["size_seconds"]
    first_window, end_window = (ceil(limit.timestamp() / size) * size for limit in (start, end))
    begin = max(int(series["first"].timestamp()), first_window)
    finish = min(int(series["last"].timestamp()), end_window - size)
    edges = [begin - size, *times, finish + size]
    return [
        Gap(start=before + size, end=after, windows=(after - before) // size - 1)
        for before, after in pairwise(edges)
        if after - before > size
    ]


@router.get("/coverage")
async def read_coverage(days: CellRange, page: PageOf, search: Search = "") -> Coverage:
    """Read how many of the expected candles each symbol has on each day. Silence is 0, and unknown is null."""
    parameters = {**days.parameters, "search": search}
    found = await _database.read(
        lambda reader: page.items(reader, SymbolCoverage, "ohlcv/queries/operations_coverage.sql", **parameters)
    )
    return Coverage(days=days.all, total=found.total, items=found.items)


@router.get("/tasks")
async def read_tasks(
    page: PageOf,
    search: Search = "",
    status: Status | None = None,
    timeframe: Timeframe | None = None,
    sort: Literal["attention", "symbol", "age", "streak", "status"] = "attention",
    order: Literal["asc", "desc"] | None = None,
) -> Tasks:
    """List tasks; without a sort order, stopped and failing ones come first, then those with the oldest data."""
    filters = {"search": search, "timeframe": timeframe}
    sorting = {"sort": sort, "descending": sort != "symbol" if order is None else order == "desc"}

    def read(reader: Reader) -> Tasks:
        statuses = dict.fromkeys(("idle", "running", "disabled", "hard_failed"), 0)
        counted = reader.rows("ohlcv/queries/operations_task_statuses.sql", **filters)
        statuses |= {row["status"]: row["tasks"] for row in counted}
        parameters = {**filters, **sorting, "status": status, "limit": page.limit, "offset": page.offset}
        rows = reader.rows("ohlcv/queries/operations_tasks.sql", **parameters)
        total = statuses[status] if status else sum(statuses.values())
        return Tasks(total=total, items=[Task(**row) for row in rows], statuses=statuses)

    return await _database.read(read)


@router.get("/runs")
async def read_runs(page: PageOf) -> Items[RunLog]:
    """List runs, the newest first."""
    return await _database.read(
        lambda reader: page.items(reader, RunLog, "ohlcv/queries/operations_runs.sql", run_id=None)
    )
