from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

from dev.sample import ohlcv
from dev.sample.load import load_new_candles

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

MONDAY = date(2026, 11, 16)


def test_day_has_every_case_of_bars() -> None:
    rows = list(ohlcv.candles(MONDAY, poisoned=True))
    assert {row["ts"].date() for row in rows} == {MONDAY}
    assert {row["symbol"] for row in rows} == {asset.symbol for asset in ohlcv.ASSETS}
    assert {row["timeframe"] for row in rows} == {"1m", "5m"}
    assert [row["symbol"] for row in rows if math.isnan(row["close"])] == [ohlcv.POISONED]
    assert len([row for row in rows if row["symbol"] == "THINLY"]) < 0.75 * 288
    valid = [row for row in rows if not math.isnan(row["close"])]
    assert all(0 < row["low"] <= min(row["open"], row["close"]) for row in valid)
    assert all(max(row["open"], row["close"]) <= row["high"] for row in valid)


def test_some_symbols_do_not_trade_on_weekends() -> None:
    symbols = {row["symbol"] for row in ohlcv.candles(MONDAY - timedelta(days=1))}
    assert symbols == {asset.symbol for asset in ohlcv.ASSETS if asset.weekends}
    assert symbols < {asset.symbol for asset in ohlcv.ASSETS}


def test_late_candles_include_new_candles_and_corrections() -> None:
    in_time = {(row["symbol"], row["ts"]): row for row in ohlcv.candles(MONDAY)}
    late = {(row["symbol"], row["ts"]): row for row in ohlcv.late_candles(MONDAY)}
    assert late.keys() - in_time.keys()
    corrected = late.keys() & in_time.keys()
    assert corrected
    assert all(late[key]["high"] > in_time[key]["high"] for key in corrected)


def test_same_day_has_the_same_candles() -> None:
    assert list(ohlcv.candles(MONDAY)) == list(ohlcv.candles(MONDAY))
    assert list(ohlcv.candles(MONDAY)) != list(ohlcv.candles(MONDAY + timedelta(days=1)))


def test_feed_sends_each_candle_once_when_it_ends(migrated: Callable[..., psycopg.Connection]) -> None:
    connection = migrated("market")
    tuesday = MONDAY + timedelta(days=1)
    midnight = datetime(tuesday.year, tuesday.month, tuesday.day, tzinfo=UTC)
    connection.execute("select ohlcv.add_candle_partitions(%s, %s)", [MONDAY, tuesday])
    moments = [midnight - timedelta(minutes=10), midnight, midnight + timedelta(minutes=7)]
    sent = 0
    for after, until in pairwise(moments):
        with connection.transaction():
            sent += load_new_candles(connection, after, until)
    over = {
        (row["symbol"], row["ts"])
        for row in [*ohlcv.candles(MONDAY), *ohlcv.candles(tuesday)]
        if moments[0] < row["ts"] + timedelta(minutes=ohlcv.MINUTES[row["timeframe"]]) <= moments[-1]
    }
    stored = connection.execute("select symbol, ts from ohlcv.candles").fetchall()
    assert {(symbol, ts.astimezone(UTC)) for symbol, ts in stored} == over
    assert (len(stored), sent) == (len(over), len(over))
