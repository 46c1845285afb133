"""Migrations of a market database with data."""

from __future__ import annotations

import shutil
from functools import partial
from typing import TYPE_CHECKING

import psycopg
import pytest

from aggregator.core.paths import SQL
from aggregator.postgres.migrations import migrate
from tests.market_data import DAY, HOUR, MINUTE, candles, expected, ingest, register, run_of, stored, tick

if TYPE_CHECKING:
    from pathlib import Path

NOON = DAY + 12 * HOUR
END = DAY + 24 * HOUR


@pytest.mark.slow
def test_base_timeframe_changed_before_0009_is_found_and_coarser_bars_are_corrected(
    database_url: str, connection: psycopg.Connection, tmp_path: Path
) -> None:
    before = tmp_path / "ohlcv" / "migrations"
    before.mkdir(parents=True)
    for number in range(1, 9):
        (migration,) = SQL.glob(f"ohlcv/migrations/{number:04}_*.sql")
        shutil.copy(migration, before)
    connect = partial(psycopg.connect, database_url)
    migrate(connect, "market", tmp_path)
    register(connection, {"A": "1m", "B": "1m", "never built": "1m"})
    # Data as stored before 0009: A had 5m until noon, and its day expects 1m candles.
    connection.execute(
        """
        insert into ohlcv.bars (
            symbol, timeframe, ts, open, high, low, close, volume, price_volume, trades, candles, expected_candles,
            derivation_version
        )
        select
            symbol, '15m', ts, 1, 1, 1, 1, 1, 1, 1, candles, candles, 1
        from unnest('{A,B}'::text[]) as symbol
        cross join generate_series(%(day)s, %(end)s - interval '1 minute', interval '15 minutes') as ts
        cross join lateral (select case when symbol = 'A' and ts < %(noon)s then 3 else 15 end as candles) as given
        union all
        select 'A', '1d', %(day)s, 1, 1, 1, 1, 1, 1, 1, 864, 1440, 1
        """,
        {"day": DAY, "noon": NOON, "end": END},
    )

    migrate(connect, "market")

    assert connection.execute("select symbol, timeframe, ends_at from ohlcv.former_base_timeframes").fetchall() == [
        ("A", "5m", NOON)
    ]
    connection.execute("select ohlcv.add_candle_partitions(%s, %s)", [DAY, DAY])
    ingest(connection, candles("A", "5m", DAY, NOON))
    ingest(connection, [row for symbol in "AB" for row in candles(symbol, "1m", NOON if symbol == "A" else DAY, END)])
    tick(connection, run_of(END + MINUTE))
    assert stored(connection) == expected(connection, END + MINUTE)
    assert stored(connection)["A", "1d", DAY][-1] == 2
    tick(connection, run_of(END + 6 * MINUTE))
    assert connection.execute("select from ohlcv.stale_windows").fetchall() == []
