from __future__ import annotations

import math
from datetime import date, timedelta

from dev.sample import ohlcv

MONDAY = date(2026, 11, 16)


def test_a_day_has_everything_that_bars_have_to_get_right() -> None:
    rows = list(ohlcv.candles(MONDAY, poisoned=True))
    assert {row["ts"].date() for row in rows} == {MONDAY}
    assert {row["symbol"] for row in rows} == {asset.symbol for asset in ohlcv.ASSETS}
    assert {row["timeframe"] for row in rows} == {"1m", "5m"}
    assert [row["symbol"] for row in rows if math.isnan(row["close"])] == [ohlcv.POISONED]
    assert len([row for row in rows if row["symbol"] == "THINLY"]) < 0.75 * 288
    valid = [row for row in rows if not math.isnan(row["close"])]
    assert all(0 < row["low"] <= min(row["open"], row["close"]) for row in valid)
    assert all(max(row["open"], row["close"]) <= row["high"] for row in valid)


def test_weekends_are_quiet_for_some() -> None:
    symbols = {row["symbol"] for row in ohlcv.candles(MONDAY - timedelta(days=1))}
    assert symbols == {asset.symbol for asset in ohlcv.ASSETS if asset.weekends}
    assert symbols < {asset.symbol for asset in ohlcv.ASSETS}


def test_late_candles_are_new_ones_and_corrections() -> None:
    in_time = {(row["symbol"], row["ts"]): row for row in ohlcv.candles(MONDAY)}
    late = {(row["symbol"], row["ts"]): row for row in ohlcv.late_candles(MONDAY)}
    assert late.keys() - in_time.keys()
    corrected = late.keys() & in_time.keys()
    assert corrected
    assert all(late[key]["high"] > in_time[key]["high"] for key in corrected)


def test_the_day_alone_decides_the_candles() -> None:
    assert list(ohlcv.candles(MONDAY)) == list(ohlcv.candles(MONDAY))
    assert list(ohlcv.candles(MONDAY)) != list(ohlcv.candles(MONDAY + timedelta(days=1)))
