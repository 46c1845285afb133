"""The frontier: aggregation lag, what each task waits for, and the command that prints it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from aggregator.ohlcv.cli import HEALTHY_TASKS, main
from tests.market_data import DAY, HOUR, MINUTE, candle, candles, ingest, register, run_of, tasks, tick

if TYPE_CHECKING:
    import psycopg

DAYS = timedelta(days=1)


class TestFrontier:
    """What each task waits for."""

    @pytest.fixture(autouse=True)
    def bars(self, market: psycopg.Connection) -> None:
        self.now = datetime.now(UTC)
        self.hour = self.now.replace(minute=0, second=0, microsecond=0)
        market.execute("select ohlcv.add_candle_partitions(%s, %s)", [self.hour - 31 * DAYS, self.hour + 31 * DAYS])
        register(market, {"A": "5m"})

    def waits(self, market: psycopg.Connection) -> dict[str, str]:
        return dict(market.execute("select timeframe, waits_for from ohlcv.frontier").fetchall())

    def overdue(self, market: psycopg.Connection) -> dict[str, timedelta | None]:
        return dict(market.execute("select timeframe, overdue from ohlcv.frontier").fetchall())

    @pytest.mark.slow
    def test_symbol_without_new_candles_waits_for_candles(self, market: psycopg.Connection) -> None:
        ingest(market, candles("A", "5m", self.hour - 30 * HOUR, self.hour - 28 * HOUR))
        tick(market, run_of(self.hour + MINUTE))
        assert self.waits(market) == {
            "15m": "candles of 5m",
            "1h": "bars of 15m",
            "4h": "bars of 1h",
            "1d": "bars of 4h",
        }
        assert set(self.overdue(market).values()) == {None}

    def test_candles_of_the_former_base_timeframe_wait_for_a_run(self, market: psycopg.Connection) -> None:
        market.execute("select ohlcv.sync_tasks()")
        market.execute("update ohlcv.tasks set cursor = %s", [self.hour - 3 * HOUR])
        ingest(market, candles("A", "5m", self.hour - 3 * HOUR, self.hour - 2 * HOUR))
        market.execute("update ohlcv.assets set base_timeframe = '1m'")
        market.execute("select ohlcv.sync_tasks()")
        query = "select waits_for, lag, overdue > '2 hours' from ohlcv.frontier where timeframe = '15m'"
        assert market.execute(query).fetchall() == [("a run", HOUR, True)]

    @pytest.mark.slow
    def test_ended_window_waits_for_a_run_or_for_finer_bars(self, market: psycopg.Connection) -> None:
        market.execute("select ohlcv.sync_tasks()")
        assert set(self.waits(market).values()) == {"candles of 5m", "bars of 15m", "bars of 1h", "bars of 4h"}
        ingest(market, candles("A", "5m", self.hour - 30 * HOUR, self.hour - 28 * HOUR))
        assert self.waits(market)["15m"] == "a run"
        tick(market, run_of(self.hour - 29 * HOUR + MINUTE))
        market.execute("update ohlcv.tasks set cursor = %s where timeframe = '1h'", [self.hour - 30 * HOUR])
        assert (self.waits(market)["15m"], self.waits(market)["1h"]) == ("a run", "a run")
        overdue = self.overdue(market)["15m"]
        assert overdue is not None
        assert overdue >= self.now - (self.hour - 29 * HOUR + 15 * MINUTE + timedelta(seconds=30))
        market.execute(
            "update ohlcv.tasks set status = 'disabled', built_until = %s where timeframe = '15m'",
            [self.hour - 30 * HOUR],
        )
        assert (self.waits(market)["15m"], self.waits(market)["1h"]) == ("a reset", "bars of 15m")

    @pytest.mark.slow
    def test_open_window_waits_for_its_end(self, market: psycopg.Connection) -> None:
        ingest(market, [candle("A", "5m", self.hour - 5 * MINUTE)])
        market.execute("select ohlcv.sync_tasks()")
        market.execute("update ohlcv.tasks set cursor = %s", [self.hour - 15 * MINUTE])
        market.execute("update ohlcv.tasks set size = '7 days' where timeframe = '15m'")
        assert (self.waits(market)["15m"], self.overdue(market)["15m"]) == ("the end of its window", None)

    @pytest.mark.slow
    def test_lag_is_unknown_without_a_cursor_or_a_candle(self, market: psycopg.Connection) -> None:
        market.execute("select ohlcv.sync_tasks()")
        assert market.execute("select distinct lag from ohlcv.frontier").fetchall() == [(None,)]
        ingest(market, [candle("A", "5m", self.hour - 5 * MINUTE)])
        assert market.execute("select distinct lag from ohlcv.frontier").fetchall() == [(None,)]


class TestCommand:
    """The commands frontier and reset."""

    @pytest.fixture(autouse=True)
    def disabled(self, market: psycopg.Connection) -> None:
        register(market, {"[red]A[/]": "1m", "B": "1m"})
        market.execute("select ohlcv.sync_tasks()")
        market.execute("update ohlcv.tasks set status = 'disabled', hard_fails = 3, last_error = 'x' where size < '2h'")

    @pytest.mark.slow
    def test_reset_makes_disabled_tasks_idle(
        self, market: psycopg.Connection, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["reset", "--symbol", "B", "--timeframe", "15m"]) == 0
        assert capsys.readouterr().out == "B 15m: was disabled, now idle\n"
        assert main(["reset"]) == 0
        assert main(["reset"]) == 1
        assert set(tasks(market, "status, hard_fails")) == {("idle", 0)}

    @pytest.mark.slow
    def test_frontier_lists_tasks_that_need_an_operator_first(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["frontier", "--timeframe", "4h", "15m"]) == 0
        printed = capsys.readouterr().out
        *table, first, second = printed.splitlines()
        lines = [line for line in table if "4h" in line or "15m" in line]
        assert "disabled" in lines[0]
        assert any("[red]A[/]" in line for line in lines)
        assert sorted([first, second]) == ["B 15m: x", "[red]A[/] 15m: x"]

    @pytest.mark.slow
    def test_frontier_explains_healthy_tasks_and_lists_unprocessed_candles(
        self, market: psycopg.Connection, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for number in range(22):
            ingest(market, [candle(f"s{number:02}", "1m", DAY + number * MINUTE)])
        ingest(market, [candle("b", "1m", DAY)])
        assert main(["frontier", "--symbol", "B", "b"]) == 0
        printed = capsys.readouterr().out
        assert HEALTHY_TASKS in printed
        assert printed.endswith(
            "Candles that no task will process:\n'b' 1m, 2026-03-08 00:00 to 2026-03-08 00:00 UTC: The symbol is not "
            "registered; 'B' differs in case or blanks only. Correct the feed, then update ohlcv.candles set symbol = "
            "'B' where symbol = 'b'.\n"
        )
        assert main(["frontier"]) == 0
        assert "and 3 more: query ohlcv.unprocessed_candles('DEV')\n" in capsys.readouterr().out

    @pytest.mark.slow
    def test_frontier_with_more_than_fifty_tasks_counts_the_rest(
        self, market: psycopg.Connection, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["frontier"]) == 0
        assert "more tasks" not in capsys.readouterr().out
        register(market, {f"S{number:03}": "5m" for number in range(300)})
        market.execute("select ohlcv.sync_tasks()")
        ((tasks,),) = market.execute("select count(*) from ohlcv.tasks").fetchall()
        assert main(["frontier"]) == 0
        assert f"and {tasks - 50:,} more tasks. Filter with --symbol" in capsys.readouterr().out

    @pytest.mark.slow
    def test_frontier_in_a_narrow_terminal_shows_whole_timestamps(
        self, market: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        market.execute("update ohlcv.tasks set cursor = '2026-11-15 12:15+00'")
        assert main(["frontier"]) == 0
        assert capsys.readouterr().out.count("2026-11-15 12:15") >= 8

    @pytest.mark.slow
    def test_frontier_without_a_database_prints_one_error_line(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_MARKET_DB", "postgresql://u@127.0.0.1:1/market?connect_timeout=2")
        assert main(["frontier"]) == 1
        assert "cannot be reached by connection market_db" in capsys.readouterr().err
