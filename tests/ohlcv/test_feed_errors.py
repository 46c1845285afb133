"""Errors of candle feeds: candles that are refused, and candles that no task processes."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.market_data import DAY, HOUR, MINUTE, candles, ingest, register, run_of, tick

if TYPE_CHECKING:
    from pathlib import Path

DAYS = timedelta(days=1)
ALIGNED = "ts_is_a_whole_step_of_its_timeframe_1m_or_5m_in_utc"


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("insert into ohlcv.candles values ('A', '1m', '2026-03-08 00:00:30+00')", ALIGNED),
        ("insert into ohlcv.candles values ('A', '5m', '2026-03-08 00:01+00')", ALIGNED),
        ("insert into ohlcv.candles values ('A', '2m', '2026-03-08 00:02+00')", ALIGNED),
        ("insert into ohlcv.candles values ('A', '1M', '2026-03-08 00:02+00')", ALIGNED),
        (
            "insert into ohlcv.candles values ('A', '1m', to_timestamp(1772928000000))",
            r"candle of 58151-.* UTC: milliseconds were read as seconds\. .* to_timestamp\(milliseconds / 1000\.0\)",
        ),
        (
            "insert into ohlcv.candles values ('A', '1m', to_timestamp(1772928000 / 1000))",
            r"candle of 1970-01-21 12:28 UTC: seconds were read as milliseconds\. .* to_timestamp\(seconds\)",
        ),
        ("insert into ohlcv.candles values ('A', '1m', '2099-01-01+00')", "is in the future, .* clock of the feed"),
        ("insert into ohlcv.candles values ('A', '1m', '-infinity')", "candle of -infinity: it is not a date"),
        ("insert into ohlcv.candles values ('A', '1m', '1999-03-08+00')", "no partition for a candle of 1999"),
        ("insert into ohlcv.candles values ('A', '1m', 'infinity')", "no partition for a candle of infinity"),
        ("truncate ohlcv.candles", "Candles are not truncated"),
        ("truncate ohlcv.candles_202603", "Candles are not truncated"),
    ],
)
@pytest.mark.slow
def test_invalid_candle_or_truncate_is_refused_with_its_cause(
    market: psycopg.Connection, statement: str, message: str
) -> None:
    with pytest.raises(psycopg.Error, match=message):
        market.execute(statement)


@pytest.mark.slow
def test_csv_file_with_reordered_columns_is_refused_by_the_documented_command(
    market: psycopg.Connection, repository: Path
) -> None:
    page = (repository / "docs" / "products" / "ohlcv.md").read_text()
    ((table, options),) = re.findall(r"^\\copy (ohlcv\.candles .*) from 'candles.csv' (.*)$", page, re.MULTILINE)

    def load(text: str) -> None:
        with market.cursor() as cursor, cursor.copy(f"copy {table} from stdin {options}") as copy:
            copy.write(text)

    with pytest.raises(psycopg.Error, match="column name mismatch"):
        load("symbol,timeframe,ts,high,open,low,close,volume,trades\nA,5m,2026-03-08T00:00Z,3,2,1,2.5,10,7\n")
    load("symbol,timeframe,ts,open,high,low,close,volume,trades\nA,5m,2026-03-08T00:00Z,2,3,1,2.5,10,7\n")
    assert market.execute("select open, high from ohlcv.candles").fetchall() == [(2, 3)]


def unprocessed(market: psycopg.Connection, environment: str = "PROD") -> list[tuple[str, str, str]]:
    rows = market.execute("select symbol, timeframe, reason from ohlcv.unprocessed_candles(%s)", [environment])
    return sorted((symbol, timeframe, reason.split(".")[0]) for symbol, timeframe, reason in rows)


class TestUnprocessedCandles:
    """Candles that no task processes."""

    @pytest.mark.slow
    def test_wrong_symbols_timeframes_and_inactive_assets_are_listed_with_reasons(
        self, market: psycopg.Connection
    ) -> None:
        register(market, {"EURUSD": "1m", "BTCUSD": "5m"})
        register(market, {"IDLE": "5m"}, active=False, test_active=True)
        for symbol, base in (
            ("EURUSD", "1m"),
            ("eurusd", "1m"),
            ("EURUSD ", "1m"),
            ("BTCUSD", "1m"),
            ("IDLE", "5m"),
            ("OTHER", "5m"),
        ):
            ingest(market, candles(symbol, base, DAY, DAY + HOUR))
        alike = "The symbol is not registered; 'EURUSD' differs in case or blanks only"
        found = [
            ("BTCUSD", "1m", "The base timeframe of the asset is 5m"),
            ("EURUSD ", "1m", alike),
            ("IDLE", "5m", "The asset is not active in PROD"),
            ("OTHER", "5m", "The symbol is not registered"),
            ("eurusd", "1m", alike),
        ]
        assert unprocessed(market) == found
        assert unprocessed(market, "DEV") == [row for row in found if row[0] != "IDLE"]

    @pytest.mark.slow
    def test_candles_of_a_former_base_timeframe_are_not_listed(self, market: psycopg.Connection) -> None:
        register(market, {"A": "5m", "B": "1m"})
        for symbol in "AB":
            ingest(market, candles(symbol, "5m", DAY, DAY + HOUR))
        wrong = ("B", "5m", "The base timeframe of the asset is 1m")
        assert unprocessed(market) == [wrong]
        tick(market, run_of(DAY + HOUR + MINUTE))
        market.execute("update ohlcv.assets set base_timeframe = '1m' where symbol = 'A'")
        tick(market, run_of(DAY + HOUR + 6 * MINUTE))
        for symbol in "AB":
            ingest(market, candles(symbol, "1m", DAY + HOUR, DAY + 2 * HOUR))
        assert unprocessed(market) == [wrong], "of the registry's timeframe from the beginning"

    @pytest.mark.slow
    def test_future_candles_are_listed_and_are_not_the_newest_source(self, market: psycopg.Connection) -> None:
        now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        market.execute("select ohlcv.add_candle_partitions(%s, %s)", [now - 2 * HOUR, now + 31 * DAYS])
        register(market, {"A": "1m"})
        market.execute("select ohlcv.sync_tasks()")
        market.execute("set timezone = 'America/New_York'")
        market.execute(
            "insert into ohlcv.candles select 'A', '1m', ts, 1, 1, 1, 1, 1, 1 from unnest(%s::timestamptz[]) as ts",
            # Without an offset, as a feed that means UTC sends them.
            [[f"{now - HOUR:%F %T}Z", f"{now:%F %T}"]],
        )
        ((symbol, _, first, reason),) = market.execute(
            "select symbol, timeframe, first_ts, reason from ohlcv.unprocessed_candles('PROD')"
        )
        assert (symbol, first > now) == ("A", True)
        assert "its session is not in UTC (set timezone = 'UTC')" in reason
        newest = "select newest_source from ohlcv.frontier where timeframe = '15m'"
        assert market.execute(newest).fetchone() == (now - HOUR,)

    @pytest.mark.slow
    def test_empty_table_lists_no_candles(self, market: psycopg.Connection) -> None:
        assert unprocessed(market) == []
