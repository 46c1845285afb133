"""Backlogs: several transactions in one run, and their limits."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import time_machine

from aggregator.core.errors import TransientError
from aggregator.ohlcv.aggregate import aggregate
from aggregator.ohlcv.plan import plan
from aggregator.ohlcv.run import finish
from tests.market_data import (
    DAY,
    FOREVER,
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
    transaction,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

pytestmark = pytest.mark.usefixtures("new_york")


class TestTimeOfARun:
    """A run builds windows while it has time, at most `max_windows_per_task` of a task per transaction."""

    AS_OF = DAY + 72 * HOUR + MINUTE

    @pytest.fixture(autouse=True)
    def backlog(self, market: psycopg.Connection, new_york: None) -> None:
        register(market, {"A": "5m", "B": "5m"})
        ingest(market, candles("A", "5m", DAY, DAY + 24 * HOUR))
        # Two days without candles.
        ingest(market, candles("A", "5m", DAY + 70 * HOUR, DAY + 72 * HOUR))
        ingest(market, candles("B", "5m", DAY + 71 * HOUR, DAY + 72 * HOUR))

    def details(self, market: psycopg.Connection) -> dict[str, Any]:
        details: dict[str, Any]
        ((details,),) = market.execute(
            "select details from ops.ops_runlog, jsonb_array_elements(checkpoints) as details "
            "where details ->> 'name' = 'aggregated' order by ops_runlog.id desc limit 1"
        ).fetchall()
        return details

    def test_backlog_of_one_symbol_is_built_in_one_run(self, market: psycopg.Connection) -> None:
        done = tick(market, run_of(self.AS_OF, max_windows_per_task=10, repeat_until=FOREVER))
        assert stored(market) == expected(market, self.AS_OF)
        assert done["complete"]
        assert done["inserted"] == len(stored(market))
        details = self.details(market)
        assert (details["transactions"], details["tasks"], details["has_more"]) == (11, 8, False)
        ((largest,),) = market.execute("select max(bars) from ops.ops_runlog_tasks where timeframe = '15m'").fetchall()
        assert largest == 10
        assert set(tasks(market, "status, owner, claimed_at, hard_fails")) == {("idle", None, None, 0)}
        assert tick(market, run_of(self.AS_OF + 5 * MINUTE))["bars"] == 0

    def test_changed_windows_are_rebuilt_in_one_run(self, market: psycopg.Connection) -> None:
        tick(market, run_of(self.AS_OF))
        market.execute("update ohlcv.candles set high = high + 1")
        as_of = self.AS_OF + 5 * MINUTE
        tick(market, run_of(as_of, max_windows_per_task=10, repeat_until=FOREVER))
        assert stored(market) == expected(market, as_of)
        assert market.execute("select from ohlcv.stale_windows").fetchall() == []
        assert self.details(market)["transactions"] == 11

    def test_run_starts_no_transaction_that_would_end_too_late(self, market: psycopg.Connection) -> None:
        with time_machine.travel(DAY, tick=False) as clock:

            @contextmanager
            def slow() -> Iterator[psycopg.Cursor]:
                with transaction(market) as cursor:
                    yield cursor
                    clock.shift(10)

            run = run_of(self.AS_OF, max_windows_per_task=10, repeat_until=DAY + timedelta(seconds=35))
            with transaction(market) as cursor:
                (shard,) = plan(cursor, run)
            aggregate(slow, run, **shard)
            with transaction(market) as cursor:
                assert finish(cursor, run).is_closed
        details = self.details(market)
        assert (details["transactions"], details["has_more"]) == (4, True)
        assert set(tasks(market, "status, owner")) == {("idle", None)}
        tick(market, run_of(self.AS_OF + 5 * MINUTE, max_windows_per_task=10, repeat_until=FOREVER))
        assert stored(market) == expected(market, self.AS_OF + 5 * MINUTE)

    def test_late_run_does_one_transaction(self, market: psycopg.Connection) -> None:
        tick(market, run_of(self.AS_OF, max_windows_per_task=10, repeat_until=DAY - HOUR))
        assert len([key for key in stored(market) if key[:2] == ("A", "15m")]) == 10

    def test_many_shards_do_one_transaction_each(
        self, market: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("aggregator.ohlcv.aggregate.MAX_REPEATING_SHARDS", 1)
        run = run_of(self.AS_OF, max_windows_per_task=10, ohlcv_symbols_per_shard=1, repeat_until=FOREVER)
        tick(market, run)
        assert len([key for key in stored(market) if key[:2] == ("A", "15m")]) == 10

    def test_run_claims_no_more_tasks_than_its_limit(self, market: psycopg.Connection) -> None:
        market.execute("update ohlcv.assets set mandatory = true where symbol = 'A'")
        tick(market, run_of(self.AS_OF, max_windows_per_task=10, max_tasks_per_run=1, repeat_until=FOREVER))
        assert {key[:2] for key in stored(market)} == {("A", "15m")}
        assert len(stored(market)) == 96 + 8

    def test_run_ends_when_a_symbol_stops_at_an_invalid_candle(self, market: psycopg.Connection) -> None:
        ingest(market, [candle("A", "5m", DAY + 12 * HOUR, open=None)])
        done = tick(market, run_of(self.AS_OF, max_windows_per_task=10, repeat_until=FOREVER))
        assert (done["failed"], done["complete"]) == (1, True)
        assert tasks(market, "cursor", "symbol = 'A' and timeframe = '15m'") == [(DAY + 12 * HOUR,)]
        assert set(tasks(market, "status")) == {("idle",)}

    @pytest.mark.parametrize("then", ["retry", "next run", "stale lock"])
    def test_run_killed_between_transactions_loses_nothing(self, market: psycopg.Connection, then: str) -> None:
        committed = 0

        @contextmanager
        def dying() -> Iterator[psycopg.Cursor]:
            nonlocal committed
            if committed == 3:
                raise TransientError("killed")
            with transaction(market) as cursor:
                yield cursor
            committed += 1

        run = run_of(self.AS_OF, max_windows_per_task=10, repeat_until=FOREVER)
        with transaction(market) as cursor:
            (shard,) = plan(cursor, run)
        with pytest.raises(TransientError):
            aggregate(dying, run, **shard)
        assert len([key for key in stored(market) if key[:2] == ("A", "15m")]) == 30
        assert ("running", run.run_id) in tasks(market, "status, owner")
        if then == "retry":
            aggregate(partial(transaction, market), run, **shard)
        elif then == "next run":
            with transaction(market) as cursor:
                assert not finish(cursor, run).is_closed
        else:
            market.execute("update ohlcv.tasks set claimed_at = claimed_at - interval '901 seconds'")
        as_of = self.AS_OF + 5 * MINUTE
        tick(market, run_of(as_of, max_windows_per_task=10, repeat_until=FOREVER))
        assert stored(market) == expected(market, as_of)
        assert set(tasks(market, "status, owner")) == {("idle", None)}
        ((built,),) = market.execute("select sum(total_bars) from ohlcv.tasks").fetchall()
        assert built == len(stored(market)), "no bar was built twice"
