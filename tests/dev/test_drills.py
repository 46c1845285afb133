"""The query with which a drill finds wrong bars. `make drills` itself tests the rest."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from dev.drills import WRONG_BARS
from tests.market_data import DAY, MINUTE, candles, ingest, register, run_of, tick

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg


@pytest.fixture
def market(migrated: Callable[..., psycopg.Connection]) -> psycopg.Connection:
    """A database with bars of one hour, built by a run."""
    connection = migrated("market")
    connection.execute("select ohlcv.add_candle_partitions(%s, %s)", [DAY, DAY])
    register(connection, {"A": "1m", "B": "5m"})
    for symbol, base in (("A", "1m"), ("B", "5m")):
        ingest(connection, candles(symbol, base, DAY, DAY + timedelta(hours=1)))
    tick(connection, run_of(DAY + timedelta(hours=1) + MINUTE))
    return connection


def wrong_bars(market: psycopg.Connection) -> set[tuple[str, int]]:
    """Symbol and minute of the windows with wrong bars."""
    parameters = {"but": "", "since": DAY, "until": DAY + timedelta(hours=1)}
    return {(symbol, ts.minute) for symbol, ts in market.execute(WRONG_BARS, parameters).fetchall()}


def test_bars_of_a_run_are_correct(market: psycopg.Connection) -> None:
    assert wrong_bars(market) == set()


def test_bars_that_differ_or_are_missing_are_found(market: psycopg.Connection) -> None:
    market.execute("update ohlcv.bars set high = high + 1 where symbol = 'A' and ts = %s", [DAY])
    market.execute("delete from ohlcv.bars where symbol = 'B' and ts = %s", [DAY + timedelta(minutes=30)])
    market.execute("delete from ohlcv.candles where symbol = 'B' and ts = %s", [DAY])
    assert wrong_bars(market) == {("A", 0), ("B", 30), ("B", 0)}
