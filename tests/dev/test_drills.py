"""What the drill of a stopped scheduler compares. The rest is for `make drills` itself to show."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from dev.drills import NOT_AS_CANDLES
from tests.market_data import DAY, MINUTE, candles, ingest, register, run_of, tick

if TYPE_CHECKING:
    import psycopg


@pytest.fixture
def market(migrated) -> psycopg.Connection:
    """Bars of an hour, made by a run."""
    connection = migrated("market")
    connection.execute("select ohlcv.add_candle_partitions(%s, %s)", [DAY, DAY])
    register(connection, {"A": "1m", "B": "5m"})
    for symbol, base in (("A", "1m"), ("B", "5m")):
        ingest(connection, candles(symbol, base, DAY, DAY + timedelta(hours=1)))
    tick(connection, run_of(DAY + timedelta(hours=1) + MINUTE))
    return connection


def different(market: psycopg.Connection) -> set[tuple[str, int]]:
    """Symbol and minute of the windows that differ."""
    window = {"but": "", "since": DAY, "until": DAY + timedelta(hours=1)}
    return {(symbol, ts.minute) for symbol, ts in market.execute(NOT_AS_CANDLES, window).fetchall()}


def test_bars_of_a_run_are_what_the_candles_give(market) -> None:
    assert different(market) == set()


def test_bars_that_differ_or_are_missing_are_found(market) -> None:
    market.execute("update ohlcv.bars set high = high + 1 where symbol = 'A' and ts = %s", [DAY])
    market.execute("delete from ohlcv.bars where symbol = 'B' and ts = %s", [DAY + timedelta(minutes=30)])
    market.execute("delete from ohlcv.candles where symbol = 'B' and ts = %s", [DAY])
    assert different(market) == {("A", 0), ("B", 30), ("B", 0)}
