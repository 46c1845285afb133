"""Symbols with ``starts_at``."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

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
    tasks,
    tick,
    versions,
)

if TYPE_CHECKING:
    import psycopg

pytestmark = pytest.mark.usefixtures("new_york")


@pytest.mark.slow
class TestStart:
    """Symbols with ``starts_at``."""

    START = DAY + 12 * HOUR
    END = DAY + 24 * HOUR

    @pytest.fixture(autouse=True)
    def built(self, market: psycopg.Connection, new_york: None) -> None:
        register(market, {"A": "5m"}, starts_at=self.START)
        ingest(market, candles("A", "5m", DAY - 24 * HOUR, self.END))
        tick(market, run_of(self.END + MINUTE))

    def test_rebuild_stores_no_bar_before_the_start(self, market: psycopg.Connection) -> None:
        before = versions(market)
        rebuild_all(market, self.END + 6 * MINUTE)
        assert versions(market) == before
        assert min(ts for _, frame, ts in stored(market) if frame != "1d") == self.START

    def test_marked_windows_before_a_later_start_are_not_built(self, market: psycopg.Connection) -> None:
        ingest(market, [candle("A", "5m", self.START + HOUR, 99.0), candle("A", "5m", self.END - HOUR, 99.0)])
        market.execute("select ohlcv.drain_candle_changes()")
        market.execute("update ohlcv.assets set starts_at = %s", [self.START + 6 * HOUR])
        totals = tick(market, run_of(self.END + 6 * MINUTE))
        assert totals["updated"] == 1 + 1 + 1 + 1, "one window of each timeframe"
        assert stored(market)["A", "15m", self.START + HOUR][1] != 100
        assert market.execute("select from ohlcv.stale_windows").fetchall() == []

    @pytest.mark.parametrize("start", [DAY, DAY - 5 * HOUR, DAY - timedelta(days=9999), None])
    def test_earlier_start_builds_the_time_before(self, market: psycopg.Connection, start: datetime | None) -> None:
        market.execute("update ohlcv.assets set starts_at = %s", [start])
        tick(market, run_of(self.END + 6 * MINUTE))
        right = expected(market, self.END + 6 * MINUTE)
        if start == DAY - 5 * HOUR:
            right = {key: bar for key, bar in right.items() if key[2] >= start and key[1] not in {"4h", "1d"}}
            found = {key: bar for key, bar in stored(market).items() if key[1] not in {"4h", "1d"}}
            assert found == right
        else:
            assert stored(market) == {key: bar for key, bar in right.items() if start is None or key[2] >= start}

    def test_earlier_start_is_built_in_steps_of_the_limit(self, market: psycopg.Connection) -> None:
        market.execute("update ohlcv.assets set starts_at = %s", [DAY])
        built = []
        for number in range(6):
            as_of = self.END + 6 * MINUTE + number * 5 * MINUTE
            built.append(tick(market, run_of(as_of, max_windows_per_task=10))["inserted"])
        assert built[0] == 10 + 3 + 1, "ten windows, and the coarser bars that contain them"
        assert stored(market) == {key: bar for key, bar in expected(market, self.END + MINUTE).items() if key[2] >= DAY}

    def test_start_in_the_future_is_not_the_cursor(self, market: psycopg.Connection) -> None:
        register(market, {"B": "5m"}, starts_at=self.END + timedelta(days=9999))
        ingest(market, candles("B", "5m", DAY, self.END))
        tick(market, run_of(self.END + 6 * MINUTE))
        market.execute("update ohlcv.assets set starts_at = %s", [DAY])
        as_of = self.END + 11 * MINUTE
        tick(market, run_of(as_of))
        assert stored(market) == {key: bar for key, bar in expected(market, as_of).items() if key[2] >= DAY}
        assert tasks(market, "cursor", "symbol = 'B' and timeframe = '15m'") == [(self.END,)]
