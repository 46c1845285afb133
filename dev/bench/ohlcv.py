"""OHLCV: the steps of a run as the DAG does them, beside the original's shape and the peers, as ratios in one run."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import psycopg
from rich.table import Table

from aggregator import ohlcv
from aggregator.migrations import migrate
from aggregator.settings import Settings
from dev.bench import ohlcv_peers as peers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from dev.bench.ohlcv_peers import Ranges
    from dev.postgres import Postgres

BACKLOGS = {"100 × 9 d": (100, 9), "10 × 90 d": (10, 90)}
QUICK_BACKLOGS = {"4 × 1 d": (4, 1), "2 × 2 d": (2, 2)}
"""Title → symbols and days of candles of 1m; the last one's is not replayed."""

TICKS = (100, 1_000, 10_000)
QUICK_TICKS = (4, 8)
"""Symbols."""

HISTORIES = (1, 9, 90)
QUICK_HISTORIES = (1, 2)
"""Days of candles of 5m before a tick."""

ORIGINAL_AT_MOST = 1_000
"""Symbols for which the original is timed; its seconds for more of them are multiples of that, and marked with ~."""

START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SETTINGS = Settings(max_tasks_per_run=1_000_000, max_windows_per_task=100_000, env_name="PROD")
WORKERS = 2
"""Shards that are aggregated at once."""

OURS = "ours"
FLOOR = "floor: no first and last"

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
    ops.ops_issues, peer.bars, original.bars, original.tasks
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
# The floor has no first and last.
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

_numbers = count()


def run(server: Postgres, *, quick: bool, console: Console) -> None:
    """Time backlogs, replays, late candles, ticks, and ticks over longer and longer histories; print a table for each.

    Args:
        server: Where databases are made for it, and dropped.
        quick: Small sizes.
        console: Where the tables go.
    """
    for bench in (_backlogs,):
        bench(server, quick, console)


@dataclass(frozen=True)
class World:
    """A migrated database with candles.

    Attributes:
        url: Of the database.
        connection: To it, in autocommit.
    """

    url: str
    connection: psycopg.Connection
    ours: dict[str, list[Any]] = field(default_factory=dict)

    def add_candles(self, symbols: range, start: datetime, end: datetime, *, base: str = "1m", step: timedelta) -> None:
        """Store a candle of timeframe `base` at every `step` for some symbols, some of them missing."""
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
        """Fill the registry."""
        self.connection.execute(
            "insert into ohlcv.assets (symbol, base_timeframe) "
            "select 'S' || lpad(n::text, 5, '0'), %s from generate_series(0, %s - 1) as n",
            [base, symbols],
        )

    def empty(self, start: datetime, end: datetime) -> None:
        """Take it back to where the candles of a range were just stored."""
        self.connection.execute(_EMPTY)
        self.connection.execute(_INGESTED, [start, end])
        self.connection.execute(
            "insert into original.tasks (symbol, timeframe, size, cursor) "
            "select symbol, timeframe, size, %s from ohlcv.assets, ohlcv.timeframes where not is_base",
            [start],
        )

    def tick(self, as_of: datetime) -> dict[str, float]:
        """One run of the DAG, its shards `WORKERS` at a time; seconds by step."""
        run = ohlcv.Run(f"bench {next(_numbers)}", as_of - 6 * MINUTE, as_of - MINUTE, as_of, SETTINGS)
        seconds = {}
        began = time.perf_counter()
        self._step(ohlcv.prepare_partitions, run)
        shards = self._step(ohlcv.plan, run)
        seconds["plan"] = time.perf_counter() - began
        with ThreadPoolExecutor(WORKERS) as workers:
            list(workers.map(lambda shard: self._step(ohlcv.aggregate, run, **shard), shards))
        seconds["aggregate"] = time.perf_counter() - began - seconds["plan"]
        if not self._step(ohlcv.finish, run)["complete"]:
            msg = "The run is not complete."
            raise RuntimeError(msg)
        seconds["whole"] = time.perf_counter() - began
        return seconds

    def _step(self, step: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        with psycopg.connect(self.url) as connection:
            return step(connection.cursor(), *arguments, **named)

    def fingerprint(self, table: str, symbols: int, query: str = _FINGERPRINT) -> list[Any]:
        """What tells whether two tables have the same bars of the first symbols."""
        return self.connection.execute(query.format(table=table), [f"S{symbols:05}"]).fetchall()

    def check(self, name: str, table: str, symbols: int) -> None:
        """Raise RuntimeError unless a table has the bars that ours had, but for the floor's first and last."""
        query = _FLOOR_FINGERPRINT if name == FLOOR else _FINGERPRINT
        if name == OURS:
            self.ours.update({query: self.fingerprint(table, symbols, query) for query in (_FINGERPRINT, _FLOOR_FINGERPRINT)})
        elif self.fingerprint(table, symbols, query) != self.ours[query]:
            msg = f"{name} does not make the bars that ours does, so their times cannot be compared."
            raise RuntimeError(msg)

    def wal(self, work: Callable[[], object], table: str) -> int:
        """Bytes of the write-ahead log that some work writes for a table."""
        ((before,),) = self.connection.execute("select pg_current_wal_insert_lsn()").fetchall()
        work()
        self.connection.execute("create extension if not exists pg_walinspect")
        ((size,),) = self.connection.execute(_WAL, [before, [table], [table], [table]]).fetchall()
        return int(size)

def _backlogs(server: Postgres, quick: bool, console: Console) -> None:
    sizes = QUICK_BACKLOGS if quick else BACKLOGS
    backlog: dict[str, dict[str, float]] = {}
    for title, (symbols, days) in sizes.items():
        with _world(server) as world:
            end = START + timedelta(days=days)
            with console.status(f"ohlcv: making the candles of {title}"):
                world.register(symbols)
                world.add_candles(range(symbols), START, end, step=MINUTE)
            backlog[title] = {}
            ways = _ways(world, symbols, dict.fromkeys(peers.SIZES, (START, end)), end + MINUTE)
            for name, (way, table, rounds) in ways.items():
                with console.status(f"ohlcv: {title}, {name}"):
                    seconds = []
                    for _ in range(rounds):
                        world.empty(START, end)
                        seconds.append(_seconds(way))
                    backlog[title][name] = statistics.median(seconds)
                    world.check(name, table, symbols)
    table = Table("way", *(cell for title in sizes for cell in (f"{title}, s", "ratio")), title="OHLCV: a backlog")
    for name in next(iter(backlog.values())):
        cells = [f"{seconds[name]:.2f} {seconds[name] / seconds[OURS]:.1f}" for seconds in backlog.values()]
        table.add_row(name, *" ".join(cells).split())
    console.print(table)


def _ways(world: World, symbols: int, ranges: Ranges, as_of: datetime) -> dict[str, tuple[Callable[[], object], str, int]]:
    """Name → the way, the table that it fills, and how often to time it."""
    names = [f"S{number:05}" for number in range(symbols)]
    return {
        OURS: (lambda: world.tick(as_of), "ohlcv.bars", 3),
        FLOOR: (lambda: peers.floor(world.url, ranges), "peer.bars", 3),
        "DuckDB": (lambda: peers.with_duckdb(world.url, ranges), "peer.bars", 3),
        "Polars": (lambda: peers.with_polars(world.url, ranges), "peer.bars", 3),
        "a statement a task": (lambda: peers.per_task(world.url, ranges, names), "peer.bars", 1),
        "original": (lambda: peers.original(world.url, ranges, names, as_of), "original.bars", 1),
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
