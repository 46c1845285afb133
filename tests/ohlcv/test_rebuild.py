"""Stale windows: rebuilds, limits, invalid candles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aggregator.ohlcv.run import TIMEFRAMES
from tests.market_data import DAY, HOUR, MINUTE, candle, candles, expected, ingest, register, run_of, stored, tick

if TYPE_CHECKING:
    import psycopg


@pytest.mark.slow
def test_rebuild_over_changed_windows_builds_each_once_and_deletes_only_changed_empty_ones(
    market: psycopg.Connection,
) -> None:
    register(market, {"A": "5m"})
    ingest(market, candles("A", "5m", DAY, DAY + 2 * HOUR))
    tick(market, run_of(DAY + 2 * HOUR + MINUTE))
    changed, unknown = DAY + HOUR, DAY + HOUR + 30 * MINUTE
    ingest(market, [candle("A", "5m", DAY + 30 * MINUTE, 99)])
    for window in (changed, unknown):
        market.execute("delete from ohlcv.candles where ts >= %s and ts < %s", [window, window + 15 * MINUTE])
    market.execute("select ohlcv.drain_candle_changes()")
    market.execute("delete from ohlcv.stale_windows where window_start = %s", [unknown])
    mark = "select ohlcv.mark_stale('{A}', '15m', %s, %s)"
    assert market.execute(mark, [DAY + 10 * MINUTE, DAY + 24 * HOUR]).fetchone() == (1,)
    assert market.execute(mark, [DAY + 2 * HOUR, DAY + 24 * HOUR]).fetchone() == (0,), "nothing there was built"
    market.execute("select ohlcv.agg_start('A', '15m', 'me')")
    counts = "r.unchanged, r.updated, r.deleted"
    build = f"select {counts} from ohlcv.catchup_aggregation_range('A', '15m', 'me', null) as r"
    assert market.execute(build).fetchall() == [(4, 1, 1)], "from the first window that starts in the range"
    bars = {ts for _, frame, ts in stored(market) if frame == "15m"}
    assert bars == {DAY + number * 15 * MINUTE for number in range(8)} - {changed}


@pytest.mark.slow
def test_rebuild_with_invalid_candles_keeps_the_remaining_windows_marked(market: psycopg.Connection) -> None:
    register(market, {"A": "5m"})
    ingest(market, candles("A", "5m", DAY, DAY + 2 * HOUR))
    tick(market, run_of(DAY + 2 * HOUR + MINUTE))
    market.execute("update ohlcv.candles set low = 'NaN' where ts = %s", [DAY + 70 * MINUTE])
    market.execute("select ohlcv.mark_stale('{A}', '15m', %s, %s)", [DAY, DAY + 24 * HOUR])
    market.execute("select ohlcv.agg_start('A', '15m', 'me')")
    build = "select r.unchanged, r.outcome from ohlcv.catchup_aggregation_range('A', '15m', 'me', null) as r"
    assert market.execute(build).fetchall() == [(4, "hard")]
    left = "select window_start, ends_at, empties from ohlcv.stale_windows"
    assert market.execute(left).fetchall() == [(DAY + HOUR, DAY + 2 * HOUR, False)]


@pytest.mark.slow
def test_stale_windows_above_the_limit_are_left_for_the_next_run(market: psycopg.Connection) -> None:
    register(market, {"A": "5m"})
    ingest(market, candles("A", "5m", DAY, DAY + HOUR))
    tick(market, run_of(DAY + HOUR + MINUTE))
    ingest(market, [candle("A", "5m", DAY + number * 15 * MINUTE, 99) for number in range(4)])
    builds = [
        tick(market, run_of(DAY + HOUR + minutes * MINUTE, max_windows_per_task=3))["updated"]
        for minutes in (6, 11, 12)
    ]
    assert builds == [3 + 1, 1 + 1, 0], "windows of 15m, and the hour"
    assert stored(market) == expected(market, DAY + HOUR + 12 * MINUTE)


@pytest.mark.slow
def test_overlapping_stale_ranges_count_each_window_once(market: psycopg.Connection) -> None:
    register(market, {"A": "5m"})
    ingest(market, candles("A", "5m", DAY, DAY + 24 * HOUR))
    as_of = DAY + 24 * HOUR + MINUTE
    tick(market, run_of(as_of))
    mark = "select ohlcv.mark_stale('{A}', '15m', %s, %s)"
    market.execute("update ohlcv.bars set high = 0 where timeframe = '15m'")
    market.execute(mark, [DAY, DAY + 12 * HOUR])
    market.execute(mark, [DAY + HOUR, DAY + 2 * HOUR])
    market.execute(mark, [DAY + 23 * HOUR, DAY + 24 * HOUR])
    built, left = [], []
    for number in range(1, 6):
        tick(market, run_of(as_of + number * 5 * MINUTE, max_windows_per_task=20))
        correct = "select count(*) from ohlcv.bars where timeframe = '15m' and high > 0"
        built += [count for (count,) in market.execute(correct)]
        ranges = "select window_start, ends_at from ohlcv.stale_windows where timeframe = '15m' order by 1"
        left.append(market.execute(ranges).fetchall())
    assert built == [20, 40, 48 + 4, 48 + 4, 48 + 4]
    assert left[:3] == [
        [(DAY + 5 * HOUR, DAY + 12 * HOUR), (DAY + 23 * HOUR, DAY + 24 * HOUR)],
        [(DAY + 10 * HOUR, DAY + 12 * HOUR), (DAY + 23 * HOUR, DAY + 24 * HOUR)],
        [],
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("first", "last"), [("-infinity", "infinity"), ("0001-01-01", "9999-12-31")])
def test_rebuild_of_an_unbounded_range_marks_existing_windows(
    market: psycopg.Connection, first: str, last: str
) -> None:
    register(market, {"A": "5m"})
    ingest(market, candles("A", "5m", DAY + 4 * HOUR, DAY + 24 * HOUR))
    tick(market, run_of(DAY + 24 * HOUR + MINUTE))
    for timeframe in TIMEFRAMES:
        market.execute("select ohlcv.mark_stale(null, %s, %s, %s)", [timeframe, first, last])
    ranges = "select distinct window_start, ends_at from ohlcv.stale_windows where timeframe <> '1d'"
    assert market.execute(ranges).fetchall() == [(DAY + 4 * HOUR, DAY + 24 * HOUR)]
    assert tick(market, run_of(DAY + 24 * HOUR + 6 * MINUTE))["unchanged"] == 80 + 20 + 5 + 1
