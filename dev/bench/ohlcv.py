"""OHLCV aggregation: the steps of the DAG compared with the original design and with peers."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import psycopg
from rich.table import Table

from aggregator.core.settings import OhlcvSettings
from aggregator.ohlcv.aggregate import aggregate
from aggregator.ohlcv.plan import plan, prepare_partitions
from aggregator.ohlcv.rebuild import RebuildParams, plan_rebuild, rebuild
from aggregator.ohlcv.run import Run, finish
from aggregator.postgres.migrations import migrate
from dev.bench import ohlcv_peers as peers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from dev.bench.ohlcv_peers import Ranges
    from dev.postgres import Postgres

BACKLOGS = {"100 × 9 d": (100, 9), "10 × 90 d": (10, 90)}
QUICK_BACKLOGS = {"4 × 1 d": (4, 1), "2 × 2 d": (2, 2)}
"""Title → symbols and days of 1m candles. The first backlog is replayed."""

TICKS = (100, 1_000, 10_000)
QUICK_TICKS = (4,)
"""Numbers of symbols."""

HISTORIES = (1, 9, 90)
QUICK_HISTORIES = (1, 2)
"""Days of 5m candles before a tick."""

MAX_ORIGINAL = 1_000
"""Maximum number of symbols for the original. Its seconds for more symbols are extrapolated and marked with ~."""

START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SETTINGS = OhlcvSettings(max_tasks_per_run=1_000_000, max_windows_per_task=100_000, env_name="PROD")
WORKERS = 2
"""Shards that are aggregated in parallel."""

OURS = "ours"
FLOOR = "floor: no open and close"
PER_TASK = "one statement per task"
ORIGINAL = "original"
REPLAYED = (OURS, "DuckDB", "Polars", PER_TASK)
GROWING = (OURS, "DuckDB", "Polars")
BARS_ALONE = "{}, bars alone"
"""Name of a peer that is given the due windows and stores no state."""

INDEXED = "{}, bars alone, index on time"
"""The same with a BRIN index on ``ts``, which finds the candles of a tick for all symbols. Ours has no such index."""

LATE = 0.01
"""Share of the 15m windows in which a candle is corrected."""

_CANDLES = """
insert into ohlcv.candles (symbol, timeframe, ts, open, high, low, close, volume, trades)
select
    'S' || lpad(symbol::text, 5, '0'), %(base)s, ts, (cents + floor(random() * 50)) / 100,
    (cents + 50 + floor(random() * 50)) / 100, (cents - floor(random() * 50)) / 100,
    (cents + floor(random() * 50)) / 100, floor(random() * 1000000)::numeric * 0.001, floor(random() * 100)
from generate_series(%(start)s, %(end)s - %(step)s, %(step)s) as ts
cross join generate_series(%(first)s::integer, %(last)s::integer) as symbol
cross join lateral (select 100 + floor(random() * 10000 + symbol * 0 + extract(minute from ts) * 0)) as price (cents)
where random() > 0.005
"""
_EMPTY = """
truncate ohlcv.bars, ohlcv.tasks, ohlcv.stale_windows, ohlcv.candle_changes, ops.ops_runlog, ops.ops_runlog_tasks,
    ops.ops_runlog_progress, ops.ops_issues, peer.bars, original.bars, original.tasks
"""
_INGESTED = """
insert into ohlcv.candle_changes
select distinct symbol, timeframe, date_bin('15 minutes', ts, '2000-01-01 00:00+00')
from ohlcv.candles where ts >= %s and ts < %s
"""
_FINGERPRINT = """
select timeframe, count(*), sum(hashtextextended(
    concat_ws('|', symbol, ts, open, high, low, close, trim_scale(volume), trim_scale(price_volume), trades, candles), 0
))
from {table} where symbol < %s group by timeframe order by timeframe
"""
_CORRECT = """
update ohlcv.candles set high = high + 0.01
where extract(minute from ts)::integer %% 15 = 7
    and mod(hashtext(symbol || date_bin('15 minutes', ts, '2000-01-01 00:00+00'))::bigint + 2147483648, %s::bigint) = 0
"""
_COLUMNS = f"{peers.COLUMNS}, expected_candles, derivation_version"
_KEEP = f"create table peer.kept as select {_COLUMNS} from ohlcv.bars"
_FILL_PEER = f"truncate peer.bars; insert into peer.bars ({_COLUMNS}) select {_COLUMNS} from {{source}}"
_FILL_ORIGINAL = f"""
insert into original.bars ({_COLUMNS}, quality, vwap, source_timeframe)
select {_COLUMNS}, quality, vwap, '1m' from ohlcv.bars where symbol < %s
"""
# The floor has no open and close.
_FLOOR_FINGERPRINT = _FINGERPRINT.replace("open, ", "").replace("close, ", "")
_WAL = """
select coalesce(sum(length), 0) from (
    select distinct start_lsn, record_length as length
    from pg_get_wal_block_info(%s, pg_current_wal_insert_lsn())
    where relfilenode in (
        select pg_relation_filenode(indexrelid) from pg_index where indrelid = any(%s::regclass[])
        union all select pg_relation_filenode(t) from unnest(%s::regclass[]) as t
        union all select pg_relation_filenode(reltoastrelid) from pg_class where oid = any(%s::regclass[])
    )
) as record
"""

_RELEASE = """
select ohlcv.finish_tasks(%(job_name)s, %(run_id)s, array_agg(
    row(
        task.symbol, task.timeframe, new.cursor, new.cursor, 1, 0, 0, 1, 0, 0, 0, null, 'success', null, false
    )::ohlcv.task_result
), %(auto_disable_hard_fails)s)
from ohlcv.tasks as task
cross join lateral (
    select date_bin(task.size, %(as_of)s - task.delay, '2000-01-01 00:00+00') as cursor
) as new
where task.owner = %(run_id)s
"""

_numbers = count()


def run(server: Postgres, *, quick: bool, console: Console) -> None:
    """Measure backlogs, replays, late candles, and ticks after histories of several lengths; print a table for each.

    Args:
        server: Server for temporary databases.
        quick: Use small sizes.
        console: Output for the tables.
    """
    for bench in (_backlogs, _ticks, _growth):
        bench(server, console, quick=quick)


@dataclass(frozen=True)
class World:
    """A migrated database with candles.

    Attributes:
        url: URL of the database.
        connection: Connection to it, in autocommit.
        ours: Fingerprint query → its rows for our bars.
    """

    url: str
    connection: psycopg.Connection
    ours: dict[str, list[Any]] = field(default_factory=dict)

    def add_candles(self, symbols: range, start: datetime, end: datetime, *, base: str = "1m", step: timedelta) -> None:
        """Insert a candle of timeframe `base` at every `step` for some symbols; a few are missing."""
        self.connection.execute("select ohlcv.add_candle_partitions(%s, %s)", [start, end])
        for day in _days(start, end):
            given = {
                "base": base,
                "start": day,
                "end": min(day + timedelta(days=1), end),
                "step": step,
                "first": symbols[0],
                "last": symbols[-1],
            }
            self.connection.execute(_CANDLES, given)
        self.connection.execute("vacuum analyze ohlcv.candles")

    def register(self, symbols: int, base: str = "1m") -> None:
        """Insert the assets."""
        self.connection.execute(
            "insert into ohlcv.assets (symbol, base_timeframe) "
            "select 'S' || lpad(n::text, 5, '0'), %s from generate_series(0, %s - 1) as n",
            [base, symbols],
        )

    def empty(self, start: datetime, end: datetime) -> None:
        """Reset the state to that after the candles of a range were inserted."""
        self.connection.execute(_EMPTY)
        self.connection.execute(_INGESTED, [start, end])
        self.connection.execute(
            "insert into original.tasks (symbol, timeframe, size, cursor) "
            "select symbol, timeframe, size, %s from ohlcv.assets, ohlcv.timeframes where not is_base",
            [start],
        )

    def restore(self, ranges: Ranges, candles_from: datetime) -> None:
        """Reset the state to that before the bars of some ranges were built. Candles after a time are new."""
        for timeframe, (start, end) in ranges.items():
            for table in ("ohlcv.bars", "original.bars", "peer.bars"):
                made = f"delete from {table} where timeframe = %s and ts >= %s and ts < %s"
                self.connection.execute(made, [timeframe, start, end])
            for table in ("ohlcv.tasks", "original.tasks"):
                reached = f"update {table} set cursor = least(cursor, %s) where timeframe = %s"
                self.connection.execute(reached, [start, timeframe])
        self.connection.execute("update ohlcv.tasks set built_until = cursor, next_run_at = cursor + size + delay")
        self.connection.execute(_INGESTED, [candles_from, candles_from + 5 * MINUTE])
        self.connection.execute("vacuum analyze ohlcv.tasks, ohlcv.bars, ohlcv.candle_changes, original.tasks")

    def rebuild(self, start: datetime, end: datetime) -> None:
        """Rebuild the bars of some days, as a run with params does."""
        run = self._run(end + 11 * MINUTE)
        last = end - timedelta(days=1)
        params = RebuildParams.read({"startDate": f"{start:%F}", "endDate": f"{last:%F}", "dryRun": False})
        shards = self._step(plan_rebuild, run, params)
        with ThreadPoolExecutor(WORKERS) as workers:
            list(workers.map(lambda shard: rebuild(self._transaction, run, params, **shard), shards))
        self._step(finish, run)

    def _run(self, as_of: datetime) -> Run:
        return Run(f"bench {next(_numbers)}", as_of - 6 * MINUTE, as_of - MINUTE, as_of, SETTINGS)

    def tick(self, as_of: datetime) -> None:
        """Execute the steps of one run, `WORKERS` shards in parallel."""
        run = self._run(as_of)
        self._step(prepare_partitions, run)
        shards = self._step(plan, run)
        with ThreadPoolExecutor(WORKERS) as workers:
            list(workers.map(lambda shard: aggregate(self._transaction, run, **shard), shards))
        if not self._step(finish, run).is_closed:
            msg = "The run is not complete."
            raise RuntimeError(msg)

    def tick_with(self, peer: Callable[[], object], as_of: datetime) -> None:
        """Execute one run in which a peer builds the bars. Due tasks, claims, cursors and run log are ours."""
        run = self._run(as_of)
        self._step(prepare_partitions, run)
        self._step(plan, run)
        peer()
        self.connection.execute(_RELEASE, run.parameters)
        self._step(finish, run)

    def _step(self, step: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        with self._transaction() as cursor:
            return step(cursor, *arguments, **named)

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Cursor]:
        with psycopg.connect(self.url) as connection:
            yield connection.cursor()

    def fingerprint(self, table: str, symbols: int, query: str = _FINGERPRINT) -> list[Any]:
        """Hashes of the bars of the first symbols, equal for tables with equal bars."""
        return self.connection.execute(query.format(table=table), [f"S{symbols:05}"]).fetchall()

    def check(self, name: str, table: str, symbols: int) -> None:
        """Raise RuntimeError unless a table has the same bars as ours. Open and close of the floor are ignored."""
        query = _FLOOR_FINGERPRINT if name == FLOOR else _FINGERPRINT
        if name == OURS:
            for each in (_FINGERPRINT, _FLOOR_FINGERPRINT):
                self.ours[each] = self.fingerprint(table, symbols, each)
        elif self.fingerprint(table, symbols, query) != self.ours[query]:
            msg = f"{name} built other bars than ours. Their times cannot be compared."
            raise RuntimeError(msg)

    def wal(self, work: Callable[[], object], table: str) -> int:
        """Bytes of the write-ahead log that some work writes for a table."""
        ((before,),) = self.connection.execute("select pg_current_wal_insert_lsn()").fetchall()
        work()
        self.connection.execute("create extension if not exists pg_walinspect")
        ((size,),) = self.connection.execute(_WAL, [before, [table], [table], [table]]).fetchall()
        return int(size)


def _backlogs(server: Postgres, console: Console, *, quick: bool) -> None:
    sizes = QUICK_BACKLOGS if quick else BACKLOGS
    fresh: dict[str, dict[str, float]] = {}
    again: dict[str, tuple[float, int, float]] = {}
    for title, (symbols, days) in sizes.items():
        with _world(server) as world:
            end = START + timedelta(days=days)
            with console.status(f"ohlcv: generating the candles of {title}"):
                world.register(symbols)
                world.add_candles(range(symbols), START, end, step=MINUTE)
            ways = _ways(world, symbols, dict.fromkeys(peers.SIZES, (START, end)), end + MINUTE)
            fresh[title] = {}
            for name, way in ways.items():
                with console.status(f"ohlcv: {title}, {name}"):
                    seconds = []
                    for _ in range(way.rounds):
                        world.empty(START, end)
                        seconds.append(_seconds(way.run))
                    fresh[title][name] = statistics.median(seconds)
                    world.check(name, way.table, symbols)
            if not again:
                with console.status(f"ohlcv: {title}, again"):
                    again = _again(world, ways, symbols, START, end)
                replayed = title
    table = Table("way", *(cell for title in sizes for cell in (f"{title}, s", "ratio")), title="OHLCV: a backlog")
    for name in next(iter(fresh.values())):
        table.add_row(name, *(cell for seconds in fresh.values() for cell in _cells(seconds[name], seconds[OURS])))
    console.print(table)
    title = f"OHLCV: {replayed} again, identical, and with {LATE:.0%} of the windows corrected"
    table = Table("way", "identical, s", "ratio", "WAL of bars, bytes", "corrected, s", "ratio", title=title)
    for name, (replay, wal, late) in again.items():
        table.add_row(name, *_cells(replay, again[OURS][0]), f"{wal:,}", *_cells(late, again[OURS][2]))
    console.print(table)


def _again(
    world: World, ways: dict[str, Way], symbols: int, start: datetime, end: datetime
) -> dict[str, tuple[float, int, float]]:
    """Seconds and WAL bytes of an identical replay, and seconds after corrections, which only ours can detect."""
    seconds: dict[str, list[float]] = {}
    wal = {}
    for name in REPLAYED:
        run = partial(world.rebuild, start, end) if name == OURS else ways[name].run
        world.empty(start, end)
        ways[name].run()
        seconds[name] = []
        wal[name] = world.wal(lambda: seconds[name].append(_seconds(run)), ways[name].table)  # noqa: B023 - called at once
    if wal[OURS]:
        msg = f"An identical replay wrote {wal[OURS]:,} bytes of WAL for bars. It must write none."
        raise RuntimeError(msg)
    world.empty(start, end)
    world.tick(end + MINUTE)
    world.connection.execute(_KEEP)
    world.connection.execute(_CORRECT, [round(1 / LATE)])
    for name in REPLAYED:
        world.connection.execute(_FILL_PEER.format(source="peer.kept"))
        run = partial(world.tick, end + 6 * MINUTE) if name == OURS else ways[name].run
        seconds[name].append(_seconds(run))
        world.check(name, ways[name].table, symbols)
    return {name: (seconds[name][0], wal[name], seconds[name][1]) for name in REPLAYED}


def _ticks(server: Postgres, console: Console, *, quick: bool) -> None:
    table = Table("symbols", "way", "all close, s", "ratio", "15m closes, s", "ratio", title="OHLCV: a tick")
    for symbols in QUICK_TICKS if quick else TICKS:
        some = min(symbols, MAX_ORIGINAL)
        end = START + timedelta(days=1)
        with _world(server) as world:
            with console.status(f"ohlcv: generating the candles of {symbols:,} symbols"):
                world.register(symbols)
                world.add_candles(range(symbols), START, end, step=MINUTE)
                world.empty(START, START)
            seconds: list[dict[str, float]] = []
            # All windows close at the end of the first day. The second tick closes a 15m window only.
            for closes_at in (end, end + 15 * MINUTE):
                with console.status(f"ohlcv: a tick of {symbols:,} symbols"):
                    if closes_at > end:
                        world.add_candles(range(symbols), end, closes_at, step=MINUTE)
                    world.tick(closes_at - 14 * MINUTE)
                    world.connection.execute(_FILL_PEER.format(source="ohlcv.bars"))
                    world.connection.execute("truncate original.bars")
                    world.connection.execute(_FILL_ORIGINAL, [f"S{some:05}"])
                    seconds.append(_tick(world, symbols, closes_at))
            for name in seconds[0]:
                mark = "~" if name == ORIGINAL and symbols > some else ""
                cells = [cell for each in seconds for cell in _cells(each[name], each[OURS], mark)]
                table.add_row(f"{symbols:,}", name, *cells, end_section=name == list(seconds[0])[-1])
    console.print(table)


def _tick(world: World, symbols: int, closes_at: datetime) -> dict[str, float]:
    """Seconds of the tick that builds the windows that close at a time."""
    ranges = {
        frame: (closes_at - size, closes_at) for frame, size in peers.SIZES.items() if not (closes_at - START) % size
    }
    some = min(symbols, MAX_ORIGINAL)
    ways = _ways(world, some, ranges, closes_at + MINUTE)
    chosen = {OURS: ways[OURS]}
    for name in ("DuckDB", "Polars"):
        alone = ways[name]
        chosen[name] = replace(alone, run=partial(world.tick_with, alone.run, closes_at + MINUTE))
        chosen[BARS_ALONE.format(name)] = alone
    seconds = _ticked(world, chosen, ranges, some)
    world.connection.execute("create index candles_ts on ohlcv.candles using brin (ts)")
    indexed = {INDEXED.format(name): ways[name] for name in ("DuckDB", "Polars")}
    seconds |= _ticked(world, indexed, ranges, some)
    world.connection.execute("drop index ohlcv.candles_ts")
    original = _ticked(world, {ORIGINAL: ways[ORIGINAL]}, ranges, some)
    return seconds | {ORIGINAL: original[ORIGINAL] * symbols / some}


def _ticked(world: World, ways: dict[str, Way], ranges: Ranges, symbols: int) -> dict[str, float]:
    """Seconds in which each way builds the windows of some ranges, all of which end at the same time."""
    (end,) = {end for _, end in ranges.values()}
    seconds = {}
    for name, way in ways.items():
        rounds = []
        for _ in range(way.rounds):
            world.restore(ranges, end - 5 * MINUTE)
            rounds.append(_seconds(way.run))
        seconds[name] = statistics.median(rounds)
        world.check(name, way.table, symbols)
    return seconds


def _growth(server: Postgres, console: Console, *, quick: bool) -> None:
    symbols = 100
    title = f"OHLCV: a tick in which all timeframes close, {symbols} symbols of 5m"
    first: dict[str, float] = {}
    table = Table("days of candles", *(cell for name in GROWING for cell in (f"{name}, s", "ratio")), title=title)
    with _world(server) as world:
        world.register(symbols, "5m")
        start = START
        for days in QUICK_HISTORIES if quick else HISTORIES:
            end = START + timedelta(days=days)
            with console.status(f"ohlcv: a tick after {days} days"):
                world.add_candles(range(symbols), start, end, base="5m", step=5 * MINUTE)
                world.tick(end - 14 * MINUTE)
                world.connection.execute(_FILL_PEER.format(source="ohlcv.bars"))
                world.connection.execute("vacuum analyze")
                ranges = {frame: (end - size, end) for frame, size in peers.SIZES.items()}
                ways = {
                    OURS: Way(partial(world.tick, end + MINUTE), "ohlcv.bars", 5),
                    "DuckDB": Way(partial(peers.with_duckdb, world.url, ranges, "5m"), "peer.bars", 5),
                    "Polars": Way(partial(peers.with_polars, world.url, ranges, "5m"), "peer.bars", 5),
                }
                seconds = _ticked(world, ways, ranges, symbols)
                world.tick(end + MINUTE)
                first = first or seconds
            table.add_row(
                f"{days}", *(cell for name in GROWING for cell in _cells(seconds[name], first[name], digits=3))
            )
            start = end
    console.print(table)


def _cells(seconds: float, ours: float, mark: str = "", digits: int | None = None) -> tuple[str, str]:
    digits = digits or (3 if seconds < 1 else 2)
    return f"{mark}{seconds:.{digits}f}", f"{seconds / ours:.1f}"


@dataclass(frozen=True)
class Way:
    """A way to build bars.

    Attributes:
        run: Builds them.
        table: Table in which it stores them.
        rounds: Number of measurements, of which the median is used.
    """

    run: Callable[[], object]
    table: str
    rounds: int


def _ways(world: World, symbols: int, ranges: Ranges, as_of: datetime) -> dict[str, Way]:
    names = [f"S{number:05}" for number in range(symbols)]
    url = world.url
    return {
        OURS: Way(lambda: world.tick(as_of), "ohlcv.bars", 3),
        FLOOR: Way(lambda: peers.floor(url, ranges), "peer.bars", 3),
        "DuckDB": Way(lambda: peers.with_duckdb(url, ranges), "peer.bars", 3),
        "Polars": Way(lambda: peers.with_polars(url, ranges), "peer.bars", 3),
        PER_TASK: Way(lambda: peers.per_task(url, ranges, names), "peer.bars", 1),
        ORIGINAL: Way(lambda: peers.original(url, ranges, names, as_of), "original.bars", 1),
    }


@contextmanager
def _world(server: Postgres) -> Iterator[World]:
    url = server.ensure_database("bench_ohlcv")
    try:
        migrate(partial(psycopg.connect, url), "market")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("set timezone = 'UTC'")
            peers.create(connection)
            yield World(url, connection)
    finally:
        server.drop_database("bench_ohlcv")


def _seconds(way: Callable[[], object]) -> float:
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def _days(start: datetime, end: datetime) -> Iterator[datetime]:
    while start < end:
        yield start
        start += timedelta(days=1)
