"""Upsert of rows from Python: our implementation compared with Airflow's own hook and plain psycopg."""

from __future__ import annotations

import os
import random
import statistics
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import psycopg
from airflow.providers.postgres.hooks.postgres import PostgresHook
from rich.table import Table

from aggregator.postgres.upsert import Rows, UpsertSpec, upsert

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from dev.postgres import Postgres

    Row = tuple[str, str, datetime, float, float, float, float, Decimal, int]

SIZES = {100: 21, 100_000: 3, 1_000_000: 1}
"""Number of rows → number of rounds. The table shows the median of the rounds."""

QUICK_SIZES = {100: 3, 1_000: 1}

COLUMNS = ["symbol", "timeframe", "ts", "open", "high", "low", "close", "volume", "trades"]
KEY = ["symbol", "timeframe", "ts"]
OURS = "upsert of Rows"

_CONN_ID = "bench_db"
_CREATE = """
create table public.bars (
    symbol text, timeframe text, ts timestamptz, open float8, high float8, low float8, close float8, volume numeric,
    trades integer, primary key (symbol, timeframe, ts)
)
"""
_EXECUTEMANY = """
insert into public.bars values (%s, %s, %s, %s, %s, %s, %s, %s, %s)
on conflict (symbol, timeframe, ts) do update set
    open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close, volume = excluded.volume,
    trades = excluded.trades
"""
_FINGERPRINT = "select count(*), sum(hashtextextended(bars::text, 0)) from public.bars"


def run(server: Postgres, *, quick: bool, console: Console) -> None:
    """Measure every way, fresh and replayed, and print medians and ratios.

    Args:
        server: Server for a temporary database.
        quick: Use small sizes and few rounds.
        console: Output for the table.
    """
    url = server.ensure_database("bench_upsert")
    os.environ[f"AIRFLOW_CONN_{_CONN_ID.upper()}"] = url
    hook = PostgresHook(_CONN_ID)
    # PostgresHook.insert_rows(replace=True) commits every 1,000 rows.
    ways: dict[str, Callable[[list[Row]], None]] = {
        OURS: lambda rows: _ours(url, rows),
        "psycopg executemany": lambda rows: _executemany(url, rows),
        "insert_rows, executemany": lambda rows: _insert_rows(hook, rows, executemany=True),
        "insert_rows": lambda rows: _insert_rows(hook, rows, executemany=False),
    }
    table = Table("rows", "way", "fresh ms", "ratio", "replay ms", "ratio", title="Upsert of 9 columns from Python")
    try:
        for size, rounds in (QUICK_SIZES if quick else SIZES).items():
            fresh, replay = _measure(url, ways, _rows(size), rounds, console)
            for way in ways:
                times = [
                    cell
                    for seconds in (fresh, replay)
                    for cell in (f"{seconds[way] * 1000:,.1f}", f"{seconds[way] / seconds[OURS]:.1f}")
                ]
                table.add_row(f"{size:,}", way, *times, end_section=way == list(ways)[-1])
    finally:
        server.drop_database("bench_upsert")
    console.print(table)


def _measure(
    url: str, ways: dict[str, Callable[[list[Row]], None]], rows: list[Row], rounds: int, console: Console
) -> tuple[dict[str, float], dict[str, float]]:
    fresh: dict[str, list[float]] = defaultdict(list)
    replay: dict[str, list[float]] = defaultdict(list)
    fingerprints = set()
    with psycopg.connect(url, autocommit=True) as connection, console.status("") as status:
        for number in range(rounds):
            for name, way in ways.items():
                status.update(f"upsert: {len(rows):,} rows, round {number + 1} of {rounds}, {name}")
                connection.execute(_CREATE)
                fresh[name].append(_seconds(way, rows))
                replay[name].append(_seconds(way, rows))
                fingerprints.add(connection.execute(_FINGERPRINT).fetchone())
                connection.execute("drop table public.bars")
    if len(fingerprints) != 1:
        msg = "The ways stored different rows. Their times cannot be compared."
        raise RuntimeError(msg)
    return _medians(fresh), _medians(replay)


def _medians(times: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def _seconds(way: Callable[[list[Row]], None], rows: list[Row]) -> float:
    start = time.perf_counter()
    way(rows)
    return time.perf_counter() - start


def _ours(url: str, rows: list[Row]) -> None:
    with psycopg.connect(url) as connection:
        upsert(connection.cursor(), UpsertSpec("public.bars", KEY), Rows(COLUMNS, rows))


def _executemany(url: str, rows: list[Row]) -> None:
    with psycopg.connect(url) as connection:
        connection.cursor().executemany(_EXECUTEMANY, rows)


def _insert_rows(hook: PostgresHook, rows: list[Row], *, executemany: bool) -> None:
    hook.insert_rows(  # type: ignore[no-untyped-call]
        "public.bars", rows, target_fields=COLUMNS, replace=True, replace_index=KEY, executemany=executemany
    )


def _rows(size: int) -> list[Row]:
    randomness = random.Random(size)  # noqa: S311 - reproducible bars, not a secret
    start = datetime(2026, 1, 1, tzinfo=UTC)
    rows: list[Row] = []
    for number in range(size):
        window, symbol = divmod(number, 100)
        low, open_, close, high = sorted(randomness.uniform(1, 100) for _ in range(4))
        volume = Decimal(randomness.randrange(10**9)).scaleb(-4)
        ts = start + timedelta(minutes=15 * window)
        rows.append((f"SYM{symbol:03}", "15m", ts, open_, high, low, close, volume, randomness.randrange(1000)))
    randomness.shuffle(rows)
    return rows
