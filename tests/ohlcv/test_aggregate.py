"""Bars of runs on a real PostgreSQL, compared with bars of an independent engine."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator.ohlcv.aggregate import aggregate
from aggregator.ohlcv.plan import plan
from aggregator.ohlcv.run import Run, finish
from tests.market_data import (
    DAY,
    FOREVER,
    HOUR,
    MINUTE,
    any_candles,
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
    versions,
)

if TYPE_CHECKING:
    import psycopg

pytestmark = pytest.mark.usefixtures("new_york")


SYMBOLS = {"EURUSD": "1m", 'O\'Neil "B"': "5m"}

FEEDS = [*SYMBOLS.items(), ("EURUSD", "5m")]

EMPTY = "delete from ohlcv.candles; delete from ohlcv.assets; delete from ohlcv.bars; " + "".join(
    f"truncate {table} cascade;"
    for table in (
        "ohlcv.candle_changes",
        "ohlcv.stale_windows",
        "ops.ops_runlog",
        "ops.ops_runlog_tasks",
        "ops.ops_issues",
    )
)


def test_bars_equal_those_of_an_independent_engine_and_a_replay_writes_nothing(market: psycopg.Connection) -> None:
    register(market, SYMBOLS)
    for symbol, base in SYMBOLS.items():
        rows = candles(symbol, base, DAY - 3 * HOUR, DAY + 30 * HOUR)
        ingest(market, [row for number, row in enumerate(rows) if number % 7])
    as_of = DAY + 30 * HOUR + MINUTE

    done = tick(market, run_of(as_of))

    assert stored(market) == expected(market, as_of)
    assert {frame for _, frame, _ in stored(market)} == {"15m", "1h", "4h", "1d"}
    assert (done["inserted"], done["updated"], done["failed"], done["complete"]) == (len(stored(market)), 0, 0, True)
    before = versions(market)
    assert tick(market, run_of(as_of))["inserted"] == 0, "the same run, cleared"
    assert tick(market, run_of(as_of + 5 * MINUTE))["inserted"] == 0, "the next one"
    assert versions(market) == before


def test_sums_of_prices_are_exact_to_fifteen_digits(market: psycopg.Connection) -> None:
    register(market, {"A": "5m"})
    prices = [1e-9, 0.00123, 0.1 + 0.2, 1.23456, 1.2345678, 4 / 3, 99.99, 65432.123456, 333333333.1, 1e12 + 0.25, 1e30]
    given = [
        candle("A", "5m", DAY + number * 15 * MINUTE, **dict.fromkeys(("open", "high", "low", "close"), price))
        for number, price in enumerate(prices)
    ]
    ingest(market, given)
    tick(market, run_of(DAY + HOUR * 24 + MINUTE))
    found = market.execute("select price_volume from ohlcv.bars where timeframe = '15m' order by ts").fetchall()
    assert found == [(Decimal(f"{price + price + price:.15g}") * Decimal("1.5"),) for price in prices]


class World:
    """A feed, a second feed whose transaction may stay open, and runs. Hypothesis chooses the order of events."""

    ACTIONS = ("ingest", "begin", "commit", "roll_back", "delete", "tick", "two_ticks", "change_base")

    def __init__(self, draw: Any, first: psycopg.Connection, second: psycopg.Connection) -> None:
        self.draw = draw
        self.first = first
        self.second = second
        self.is_open = False
        self.as_of = DAY + 21 * MINUTE

    def ingest(self) -> None:
        if not self.is_open:  # else it would wait for the other feed
            ingest(self.first, self.draw(any_candles(FEEDS, 2)))

    def begin(self) -> None:
        if not self.is_open:
            self.second.execute("begin")
            ingest(self.second, self.draw(any_candles(FEEDS, 2)))
            self.is_open = True

    def commit(self, how: str = "commit") -> None:
        if self.is_open:
            self.second.execute(how)
            self.is_open = False

    def roll_back(self) -> None:
        self.commit("rollback")

    def delete(self) -> None:
        if not self.is_open:
            share = self.draw(st.integers(1, 3))
            self.first.execute("delete from ohlcv.candles where extract(minute from ts)::int %% 4 = %s", [share])

    def change_base(self) -> None:
        """Change the base timeframe. The feed may have sent the other one before, and may keep the former one."""
        other = "case base_timeframe when '1m' then '5m' else '1m' end"
        self.first.execute(f"update ohlcv.assets set base_timeframe = {other} where symbol = 'EURUSD'")

    def tick(self) -> None:
        tick(self.first, self._next_run())

    def two_ticks(self) -> None:
        """Execute two runs: both plan before either aggregates, and the last one to plan aggregates first."""
        runs = [self._next_run(), self._next_run()]
        plans = []
        for run in runs:
            with transaction(self.first) as cursor:
                plans.append(plan(cursor, run))
        for run, shards in reversed(list(zip(runs, plans, strict=True))):
            for shard in shards:
                aggregate(partial(transaction, self.first), run, **shard)
            self.ingest()
        for run in runs:
            with transaction(self.first) as cursor:
                assert finish(cursor, run).is_closed

    def _next_run(self) -> Run:
        self.as_of += self.draw(st.sampled_from([5, 15, 240, 1440])) * MINUTE
        return run_of(
            self.as_of,
            repeat_until=self.draw(st.sampled_from([None, FOREVER])),
            max_windows_per_task=self.draw(st.sampled_from([1, 3, 1000])),
            max_tasks_per_run=self.draw(st.sampled_from([2, 1000])),
        )


@pytest.mark.slow
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(actions=st.lists(st.sampled_from(World.ACTIONS), max_size=14), data=st.data())
def test_any_order_of_ingest_and_runs_gives_the_bars_of_an_independent_engine(
    market: psycopg.Connection, other: psycopg.Connection, actions: list[str], data: st.DataObject
) -> None:
    market.execute(EMPTY)
    register(market, SYMBOLS)
    world = World(data.draw, market, other)
    try:
        for action in actions:
            getattr(world, action)()
        world.commit()
    finally:
        world.roll_back()
    last = max(world.as_of, DAY + 72 * HOUR + MINUTE)
    tick(market, run_of(last))

    assert stored(market) == expected(market, last)
    assert market.execute("select from ohlcv.stale_windows").fetchall() == []
    before = versions(market)
    tick(market, run_of(last))
    assert versions(market) == before


def test_candle_whose_transaction_spans_a_run_is_not_missed(
    market: psycopg.Connection, other: psycopg.Connection
) -> None:
    register(market, {"A": "1m"})
    ingest(market, candles("A", "1m", DAY, DAY + 2 * HOUR))
    with other.transaction():
        ingest(other, [candle("A", "1m", DAY + 3 * MINUTE, 99)])
        tick(market, run_of(DAY + 2 * HOUR + MINUTE))
    tick(market, run_of(DAY + 2 * HOUR + 6 * MINUTE))
    assert stored(market) == expected(market, DAY + 2 * HOUR + 6 * MINUTE)
    assert stored(market)["A", "1h", DAY][1] == 100


@pytest.mark.slow
def test_candle_committed_while_a_task_is_built_from_psql_is_not_missed(
    market: psycopg.Connection, other: psycopg.Connection
) -> None:
    register(market, {"A": "1m"})
    ingest(market, candles("A", "1m", DAY, DAY + HOUR))
    market.execute("select ohlcv.sync_tasks()")
    as_of = DAY + HOUR + MINUTE
    with other.transaction():
        other.execute("select ohlcv.agg_start('A', '15m', 'me')")
        results = other.execute(
            "select r::text from ohlcv.catchup_aggregation_range('A', '15m', 'me', %s) as r", [as_of]
        ).fetchall()
        ingest(market, [candle("A", "1m", DAY, 50)])
        assert market.execute("select ohlcv.drain_candle_changes()").fetchone() == (None,), "the claim is open"
        other.execute("select ohlcv.agg_finish('me', %s::ohlcv.task_result)", results[0])
    tick(market, run_of(as_of))
    assert stored(market) == expected(market, as_of)


def test_late_candles_rebuild_exactly_their_windows(market: psycopg.Connection) -> None:
    register(market, {"A": "1m", "B": "1m"})
    for symbol in "AB":
        ingest(market, candles(symbol, "1m", DAY, DAY + 26 * HOUR))
    tick(market, run_of(DAY + 26 * HOUR + MINUTE))
    before = {tuple(row[:3]): row for row in versions(market)}
    market.execute("update ohlcv.candles set high = 500 where symbol = 'A' and ts = %s", [DAY + 61 * MINUTE])

    done = tick(market, run_of(DAY + 26 * HOUR + 6 * MINUTE))

    assert stored(market) == expected(market, DAY + 26 * HOUR + 6 * MINUTE)
    changed = [key for key, row in {tuple(row[:3]): row for row in versions(market)}.items() if before.get(key) != row]
    assert sorted((symbol, frame) for symbol, frame, _ in changed) == [
        ("A", frame) for frame in ("15m", "1d", "1h", "4h")
    ]
    assert (done["updated"], done["inserted"]) == (4, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "statement",
    [
        "delete from ohlcv.candles where ts < %s",
        "delete from ohlcv.candles_202603 where ts < %s",
        "update ohlcv.candles set ts = ts + interval '31 days' where ts < %s",
        """
        with moved as (delete from ohlcv.candles where ts < %s returning *)
        insert into ohlcv.candles
        select symbol, timeframe, ts + interval '7 days', open, high, low, close, volume, trades from moved
        """,
    ],
)
def test_bars_follow_deleted_and_moved_candles(market: psycopg.Connection, statement: str) -> None:
    register(market, {"A": "5m"})
    ingest(market, candles("A", "5m", DAY, DAY + 9 * HOUR))
    tick(market, run_of(DAY + 9 * HOUR + MINUTE))
    market.execute(statement, [DAY + 4 * HOUR])
    as_of = DAY + timedelta(days=33) + MINUTE
    done = tick(market, run_of(as_of))
    assert stored(market) == expected(market, as_of)
    assert done["deleted"] >= 16 + 4 + 1


@pytest.mark.slow
def test_closed_market_has_coarse_bars_and_processes_late_candles(market: psycopg.Connection) -> None:
    register(market, {"A": "1m"})
    ingest(market, candles("A", "1m", DAY, DAY + 37 * MINUTE))
    as_of = DAY + 24 * HOUR + MINUTE
    done = tick(market, run_of(as_of))
    assert stored(market) == expected(market, as_of)
    assert ("A", "1d", DAY) in stored(market)
    assert tasks(market, "timeframe, cursor")[0] == ("15m", DAY + 45 * MINUTE), "the cursor stays at the newest candle"
    assert done["skipped_windows"] == 0
    ingest(market, [candle("A", "1m", DAY + 20 * HOUR, 77)])
    done = tick(market, run_of(as_of + 5 * MINUTE))
    assert stored(market) == expected(market, as_of + 5 * MINUTE)
    assert done["skipped_windows"] == (80 - 3) + (20 - 1) + (5 - 1)
    ingest(market, [candle("A", "1m", DAY + 3 * HOUR, 88)])
    done = tick(market, run_of(as_of + 10 * MINUTE))
    assert stored(market) == expected(market, as_of + 10 * MINUTE)
    assert done["skipped_windows"] == 0, "a late candle moves no cursor back"
