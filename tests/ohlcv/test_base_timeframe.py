"""Symbols whose base timeframe changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
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
    rebuild_all,
    register,
    run_of,
    stored,
    tick,
    versions,
)

if TYPE_CHECKING:
    import psycopg

pytestmark = pytest.mark.usefixtures("new_york")


def qualities(connection: psycopg.Connection, timeframe: str) -> list[tuple[Any, ...]]:
    query = "select ts, candles, expected_candles, quality from ohlcv.bars where timeframe = %s order by ts"
    return connection.execute(query, [timeframe]).fetchall()


@pytest.mark.slow
class TestChangedBaseTimeframe:
    """The base timeframe of a symbol changes at noon, after everything before it was built."""

    NOON = DAY + 12 * HOUR
    END = DAY + 24 * HOUR

    def change(self, market: psycopg.Connection, before: str, after: str) -> None:
        register(market, {"A": before})
        ingest(market, candles("A", before, DAY, self.NOON))
        tick(market, run_of(self.NOON + MINUTE))
        market.execute("update ohlcv.assets set base_timeframe = %s", [after])

    def test_complete_candles_make_complete_bars_also_in_a_rebuild(self, market: psycopg.Connection) -> None:
        self.change(market, "5m", "1m")
        ingest(market, candles("A", "1m", self.NOON, self.END))
        tick(market, run_of(self.END + MINUTE))
        assert qualities(market, "1d") == [(DAY, 1440, 1440, 2)]
        assert [bar[1:] for bar in qualities(market, "4h")] == [(48, 48, 2)] * 3 + [(240, 240, 2)] * 3
        assert stored(market) == expected(market, self.END + MINUTE)
        before = versions(market)
        assert rebuild_all(market, self.END + 6 * MINUTE)["unchanged"] == 96 + 24 + 6 + 1
        assert versions(market) == before

    def test_sparse_candles_of_a_coarser_timeframe_do_not_make_the_day_complete(
        self, market: psycopg.Connection
    ) -> None:
        self.change(market, "1m", "5m")
        ingest(market, [candle("A", "5m", self.NOON + hour * HOUR) for hour in range(12)])
        tick(market, run_of(self.END + MINUTE))
        assert qualities(market, "1d") == [(DAY, 720 + 60, 1440, -1)]
        assert [bar[1:] for bar in qualities(market, "1h")] == [(60, 60, 2)] * 12 + [(1, 12, -1)] * 12
        assert stored(market) == expected(market, self.END + MINUTE)

    def test_corrected_and_deleted_candles_of_the_former_timeframe_are_processed(
        self, market: psycopg.Connection
    ) -> None:
        self.change(market, "5m", "1m")
        ingest(market, candles("A", "1m", self.NOON, self.END))
        tick(market, run_of(self.END + MINUTE))
        ingest(market, [candle("A", "5m", DAY + 2 * HOUR, 500.0)])
        market.execute("delete from ohlcv.candles where timeframe = '5m' and ts >= %s", [DAY + 11 * HOUR])
        totals = tick(market, run_of(self.END + 6 * MINUTE))
        assert (totals["updated"], totals["deleted"]) == (1 + 1 + 2 + 1, 4 + 1)
        assert stored(market) == expected(market, self.END + 6 * MINUTE)
        assert stored(market)["A", "4h", DAY][1] == 501

    def test_change_of_the_feed_inside_a_window_loses_no_candle(self, market: psycopg.Connection) -> None:
        register(market, {"A": "5m"})
        changes = self.NOON + 5 * MINUTE
        ingest(market, candles("A", "5m", DAY, changes))
        tick(market, run_of(changes + MINUTE))
        market.execute("update ohlcv.assets set base_timeframe = '1m'")
        ingest(market, candles("A", "1m", changes, self.END))
        tick(market, run_of(self.END + MINUTE))
        assert stored(market) == expected(market, self.END + MINUTE)
        ((_, *window),) = [bar for bar in qualities(market, "15m") if bar[0] == self.NOON]
        assert window == [15, 15, 2]

    def test_change_of_the_feed_after_the_registry_loses_no_candle(self, market: psycopg.Connection) -> None:
        self.change(market, "5m", "1m")
        tick(market, run_of(self.NOON + 6 * MINUTE))
        changes = self.NOON + 3 * HOUR
        ingest(market, candles("A", "5m", self.NOON, changes))
        ingest(market, candles("A", "1m", changes, self.END))
        tick(market, run_of(self.END + MINUTE))
        assert qualities(market, "1d") == [(DAY, 1440, 1440, 2)]
        assert stored(market) == expected(market, self.END + MINUTE)

    @pytest.mark.parametrize(("before", "after"), [("5m", "1m"), ("1m", "5m")])
    def test_candles_of_both_timeframes_are_not_counted_twice(
        self, market: psycopg.Connection, before: str, after: str
    ) -> None:
        register(market, {"A": before})
        for base in (before, after):
            ingest(market, candles("A", base, DAY, self.NOON))
        tick(market, run_of(self.NOON + MINUTE))
        built = stored(market)
        market.execute("update ohlcv.assets set base_timeframe = %s", [after])
        tick(market, run_of(self.NOON + 6 * MINUTE))
        for base in (before, after):
            ingest(market, candles("A", base, self.NOON, self.END))
        tick(market, run_of(self.END + MINUTE))
        assert stored(market).items() >= {key: bar for key, bar in built.items() if key[1] != "1d"}.items()
        assert stored(market) == expected(market, self.END + MINUTE)
        volumes = market.execute("select sum(volume), sum(candles) from ohlcv.bars where timeframe = '15m'").fetchone()
        assert volumes == ((144 + 720) * Decimal("1.5"), 144 + 720)

    def test_reverted_change_keeps_the_bars(self, market: psycopg.Connection) -> None:
        self.change(market, "5m", "1m")
        tick(market, run_of(self.NOON + 6 * MINUTE))
        market.execute("update ohlcv.assets set base_timeframe = '5m'")
        ingest(market, candles("A", "5m", self.NOON, self.END))
        tick(market, run_of(self.END + MINUTE))
        assert qualities(market, "1d") == [(DAY, 288, 288, 2)]
        assert rebuild_all(market, self.END + 6 * MINUTE)["unchanged"] == 96 + 24 + 6 + 1

    def test_change_of_a_few_minutes_keeps_its_bars(self, market: psycopg.Connection) -> None:
        self.change(market, "1m", "5m")
        ingest(market, [candle("A", "5m", DAY - HOUR)])
        tick(market, run_of(self.NOON + 6 * MINUTE))
        market.execute("update ohlcv.assets set base_timeframe = '1m'")
        ingest(market, candles("A", "1m", self.NOON, self.END))
        ingest(market, [candle("A", "5m", DAY - 2 * HOUR)])
        tick(market, run_of(self.END + MINUTE))
        assert stored(market) == expected(market, self.END + MINUTE)
        assert [bar[1:] for bar in qualities(market, "1d")] == [(2, 288, -1), (1440, 1440, 2)]

    def test_retention_keeps_candles_of_the_former_timeframe_that_are_not_aggregated(
        self, market: psycopg.Connection
    ) -> None:
        register(market, {"A": "5m"})
        ingest(market, candles("A", "5m", DAY, self.NOON))
        tick(market, run_of(self.NOON + MINUTE, max_windows_per_task=3))
        market.execute("update ohlcv.assets set base_timeframe = '1m'")
        market.execute("select ohlcv.sync_tasks()")
        drop = "select ohlcv.drop_candle_partitions('2026-04-01 00:00+00')"
        assert market.execute(drop).fetchone() == (["candles_202602"],)
        tick(market, run_of(DAY + timedelta(days=30) + MINUTE))
        ingest(market, [candle("A", "1m", DAY + timedelta(days=30))])
        tick(market, run_of(DAY + timedelta(days=31) + MINUTE))
        assert market.execute(drop).fetchone() == (["candles_202603"],)

    def test_candles_of_a_timeframe_that_was_never_used_make_no_bars(self, market: psycopg.Connection) -> None:
        register(market, {"A": "1m"})
        ingest(market, candles("A", "5m", DAY, self.NOON))
        tick(market, run_of(self.NOON + MINUTE))
        assert stored(market) == {}

    def test_future_candle_does_not_keep_the_former_timeframe_in_use(self, market: psycopg.Connection) -> None:
        register(market, {"A": "5m"})
        ingest(market, candles("A", "5m", DAY, self.NOON))
        tick(market, run_of(self.NOON + MINUTE))
        ahead = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(days=20)
        market.execute("select ohlcv.add_candle_partitions(now(), %s)", [ahead])
        ingest(market, [candle("A", "5m", ahead)])
        market.execute("update ohlcv.assets set base_timeframe = '1m'")
        ingest(market, candles("A", "1m", self.NOON, self.END))
        tick(market, run_of(self.END + MINUTE))
        assert market.execute("select ends_at from ohlcv.former_base_timeframes").fetchall() == [(self.NOON,)]
        assert qualities(market, "1d") == [(DAY, 1440, 1440, 2)]
