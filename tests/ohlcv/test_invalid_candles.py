"""Candles from which no bar can be built, and bars that PostgreSQL refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.market_data import (
    DAY,
    HOUR,
    MINUTE,
    candle,
    candles,
    expected,
    ingest,
    register,
    run_of,
    stored,
    tasks,
    tick,
)

if TYPE_CHECKING:
    import psycopg

pytestmark = pytest.mark.usefixtures("new_york")


INVALID = {
    "nan": {"close": float("nan")},
    "infinite": {"high": float("inf")},
    "minus infinite": {"low": float("-inf")},
    "zero": {"low": 0.0},
    "negative": {"open": -1.0},
    "high below low": {"high": 1.0},
    "open above high": {"open": 50.0},
    "open below low": {"open": 0.5},
    "close above high": {"close": 50.0},
    "close below low": {"close": 0.5},
    "no price": {"open": None},
    "no volume": {"volume": None},
    "negative volume": {"volume": -1},
    "volume that is no number": {"volume": "NaN"},
    "overflow": {"high": 1.7e308, "close": 1.7e308, "open": 1.7e308, "low": 1.7e308},
}


@pytest.mark.slow
@pytest.mark.parametrize("values", INVALID.values(), ids=INVALID.keys())
def test_symbol_with_an_invalid_candle_stops_and_the_others_continue(
    market: psycopg.Connection, values: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    symbols = [f"S{number}" for number in range(5)]
    register(market, dict.fromkeys(symbols, "5m"))
    for symbol in symbols:
        ingest(market, candles(symbol, "5m", DAY, DAY + HOUR))
    bad = DAY + 20 * MINUTE
    ingest(market, [candle("S3", "5m", bad, **values)])
    as_of = DAY + HOUR + MINUTE

    done = tick(market, run_of(as_of))

    assert (done["complete"], done["failed"]) == (True, 1)
    assert {key: bar for key, bar in stored(market).items() if key[0] != "S3"} == expected(market, as_of, but="S3")
    overflowed = values == INVALID["overflow"]
    first = [] if overflowed else [("S3", "15m", DAY)]
    assert [key for key in stored(market) if key[0] == "S3"] == first
    ((status, streak, error, cursor),) = tasks(
        market, "status, hard_fails, last_error, cursor", "symbol = 'S3' and timeframe = '15m'"
    )
    assert (status, streak, cursor) == ("idle", 1, None if overflowed else DAY + 15 * MINUTE)
    assert ("22003" if overflowed else "2026-03-08 00:15 UTC") in error
    assert market.execute("select symbol, timeframe, status from ops.ops_issues").fetchall() == [("S3", "15m", "idle")]
    assert "S3" in caplog.text

    tick(market, run_of(as_of + 5 * MINUTE))
    tick(market, run_of(as_of + 10 * MINUTE))
    assert tasks(market, "status, hard_fails", "symbol = 'S3' and timeframe = '15m'") == [("disabled", 3)]
    ingest(market, [candle("S3", "5m", bad, 33)])
    assert tick(market, run_of(as_of + 15 * MINUTE))["bars"] == 0, "it stays disabled until a reset"
    market.execute("select ohlcv.reset_tasks('{S3}')")
    tick(market, run_of(as_of + 20 * MINUTE))
    assert stored(market) == expected(market, as_of + 20 * MINUTE)
    assert tasks(market, "status, hard_fails, last_error", "symbol = 'S3' and timeframe = '15m'") == [("idle", 0, None)]


@pytest.mark.slow
def test_invalid_correction_keeps_the_bar_until_it_is_fixed(market: psycopg.Connection) -> None:
    register(market, {"A": "5m"}, mandatory=True)
    ingest(market, candles("A", "5m", DAY, DAY + 2 * HOUR))
    as_of = DAY + 2 * HOUR + MINUTE
    tick(market, run_of(as_of))
    before = stored(market)
    ingest(market, [candle("A", "5m", DAY, volume=None)])
    for _ in range(3):
        as_of += 5 * MINUTE
        tick(market, run_of(as_of))
    assert stored(market) == before
    assert tasks(market, "status", "timeframe = '15m'") == [("hard_failed",)]
    ingest(market, [candle("A", "5m", DAY, 44)])
    market.execute("select ohlcv.reset_tasks()")
    tick(market, run_of(as_of + 5 * MINUTE))
    assert stored(market) == expected(market, as_of + 5 * MINUTE) != before


def test_bars_that_postgres_refuses_do_not_stop_the_others(market: psycopg.Connection) -> None:
    symbols = [f"S{number:02}" for number in range(40)]
    register(market, dict.fromkeys(symbols, "5m"))
    for symbol in symbols:
        ingest(market, candles(symbol, "5m", DAY, DAY + HOUR))
    market.execute("alter table ohlcv.bars add check (symbol not in ('S07', 'S31') or timeframe <> '1h')")
    done = tick(market, run_of(DAY + HOUR + MINUTE))
    assert (done["failed"], done["inserted"]) == (2, 40 * 4 + 38)
    errors = tasks(market, "symbol, last_error", "last_error is not null")
    assert [symbol for symbol, _ in errors] == ["S07", "S31"]
    assert "23514 check_violation" in errors[0][1]
    assert "Failing row" not in errors[0][1]
