"""Ticks on a real PostgreSQL, beside an engine that is not ours."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import psycopg
import pytest
import time_machine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator.core.errors import TransientError
from aggregator.ohlcv.aggregate import aggregate
from aggregator.ohlcv.plan import plan
from aggregator.ohlcv.run import TIMEFRAMES, Run, Totals, finish
from tests.market_data import (
    DAY,
    FOREVER,
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
    from collections.abc import Iterator

HOUR = 60 * MINUTE
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


@pytest.fixture
def market(migrated) -> psycopg.Connection:
    """An autocommit connection to a migrated, empty database, on a server whose time zone has summer time."""
    connection = migrated("market")
    connection.execute(f"alter database {connection.info.dbname} set timezone to 'America/New_York'")
    connection.execute("set timezone to 'America/New_York'")
    connection.execute("select ohlcv.add_candle_partitions(%s, %s)", [DAY, DAY + timedelta(days=30)])
    return connection


@pytest.fixture
def other(database_url: str, market) -> Iterator[psycopg.Connection]:
    """A second connection, in autocommit."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def test_bars_are_those_of_an_independent_engine_and_a_replay_writes_nothing(market) -> None:
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


def test_sums_of_prices_are_exact_to_fifteen_digits_whatever_the_prices(market) -> None:
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
    """A feed, a second feed whose transaction may stay open, and ticks; hypothesis says what happens next."""

    ACTIONS = ("ingest", "begin", "commit", "roll_back", "delete", "tick", "two_ticks", "change_base")

    def __init__(self, draw: Any, first: psycopg.Connection, second: psycopg.Connection) -> None:
        self.draw = draw
        self.first = first
        self.second = second
        self.is_open = False
        self.moment = DAY + 21 * MINUTE

    def ingest(self) -> None:
        if not self.is_open:  # it would wait for the other feed
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
        """The feed may have sent candles of the other timeframe before, and may go on with the former one."""
        other = "case base_timeframe when '1m' then '5m' else '1m' end"
        self.first.execute(f"update ohlcv.assets set base_timeframe = {other} where symbol = 'EURUSD'")

    def tick(self) -> None:
        tick(self.first, self._next_run())

    def two_ticks(self) -> None:
        """Both plan before either of them aggregates, and the one that planned last aggregates first."""
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
                assert finish(cursor, run)["complete"]

    def _next_run(self) -> Run:
        self.moment += self.draw(st.sampled_from([5, 15, 240, 1440])) * MINUTE
        return run_of(
            self.moment,
            repeat_until=self.draw(st.sampled_from([None, FOREVER])),
            max_windows_per_task=self.draw(st.sampled_from([1, 3, 1000])),
            max_tasks_per_run=self.draw(st.sampled_from([2, 1000])),
        )


@pytest.mark.slow
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(actions=st.lists(st.sampled_from(World.ACTIONS), max_size=14), data=st.data())
def test_any_interleaving_of_ingest_and_ticks_ends_with_the_bars_of_an_independent_engine(
    market, other, actions, data
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
    last = max(world.moment, DAY + 72 * HOUR + MINUTE)
    tick(market, run_of(last))

    assert stored(market) == expected(market, last)
    assert market.execute("select from ohlcv.stale_windows").fetchall() == []
    before = versions(market)
    tick(market, run_of(last))
    assert versions(market) == before


def test_candle_whose_transaction_spans_a_tick_is_not_missed(market, other) -> None:
    register(market, {"A": "1m"})
    ingest(market, candles("A", "1m", DAY, DAY + 2 * HOUR))
    with other.transaction():
        ingest(other, [candle("A", "1m", DAY + 3 * MINUTE, 99)])
        tick(market, run_of(DAY + 2 * HOUR + MINUTE))
    tick(market, run_of(DAY + 2 * HOUR + 6 * MINUTE))
    assert stored(market) == expected(market, DAY + 2 * HOUR + 6 * MINUTE)
    assert stored(market)["A", "1h", DAY][1] == 100


@pytest.mark.slow
def test_candle_that_is_committed_while_a_single_task_is_aggregated_in_one_transaction_is_not_missed(
    market, other
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
        assert market.execute("select ohlcv.drain_candle_changes()").fetchone() == (None,), "not now"
        other.execute("select ohlcv.agg_finish('me', %s::ohlcv.task_result)", results[0])
    tick(market, run_of(as_of))
    assert stored(market) == expected(market, as_of)


def test_late_candles_build_exactly_their_windows_again(market) -> None:
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


def rebuild(connection: psycopg.Connection, moment: datetime) -> dict[str, Any]:
    """A rebuild of everything, by the functions of the DAG."""
    for timeframe in TIMEFRAMES:
        connection.execute("select ohlcv.mark_stale(null, %s, %s, %s)", [timeframe, DAY - 48 * HOUR, DAY + 48 * HOUR])
    return tick(connection, run_of(moment))


def qualities(connection: psycopg.Connection, timeframe: str) -> list[tuple[Any, ...]]:
    query = "select ts, candles, expected_candles, quality from ohlcv.bars where timeframe = %s order by ts"
    return connection.execute(query, [timeframe]).fetchall()


@pytest.mark.slow
class TestChangedBaseTimeframe:
    """The base timeframe of a symbol changes at noon, and everything before it was built."""

    NOON = DAY + 12 * HOUR
    END = DAY + 24 * HOUR

    def change(self, market, before: str, after: str) -> None:
        register(market, {"A": before})
        ingest(market, candles("A", before, DAY, self.NOON))
        tick(market, run_of(self.NOON + MINUTE))
        market.execute("update ohlcv.assets set base_timeframe = %s", [after])

    def test_complete_candles_before_and_after_make_complete_bars_also_in_a_rebuild(self, market) -> None:
        self.change(market, "5m", "1m")
        ingest(market, candles("A", "1m", self.NOON, self.END))
        tick(market, run_of(self.END + MINUTE))
        assert qualities(market, "1d") == [(DAY, 1440, 1440, 2)]
        assert [bar[1:] for bar in qualities(market, "4h")] == [(48, 48, 2)] * 3 + [(240, 240, 2)] * 3
        assert stored(market) == expected(market, self.END + MINUTE)
        before = versions(market)
        assert rebuild(market, self.END + 6 * MINUTE)["unchanged"] == 96 + 24 + 6 + 1
        assert versions(market) == before

    def test_sparse_candles_of_a_coarser_timeframe_do_not_make_the_day_complete(self, market) -> None:
        self.change(market, "1m", "5m")
        ingest(market, [candle("A", "5m", self.NOON + hour * HOUR) for hour in range(12)])
        tick(market, run_of(self.END + MINUTE))
        assert qualities(market, "1d") == [(DAY, 720 + 60, 1440, -1)]
        assert [bar[1:] for bar in qualities(market, "1h")] == [(60, 60, 2)] * 12 + [(1, 12, -1)] * 12
        assert stored(market) == expected(market, self.END + MINUTE)

    def test_corrected_and_deleted_candles_of_the_former_timeframe_are_taken(self, market) -> None:
        self.change(market, "5m", "1m")
        ingest(market, candles("A", "1m", self.NOON, self.END))
        tick(market, run_of(self.END + MINUTE))
        ingest(market, [candle("A", "5m", DAY + 2 * HOUR, 500.0)])
        market.execute("delete from ohlcv.candles where timeframe = '5m' and ts >= %s", [DAY + 11 * HOUR])
        totals = tick(market, run_of(self.END + 6 * MINUTE))
        assert (totals["updated"], totals["deleted"]) == (1 + 1 + 2 + 1, 4 + 1)
        assert stored(market) == expected(market, self.END + 6 * MINUTE)
        assert stored(market)["A", "4h", DAY][1] == 501

    def test_feed_that_changes_in_the_middle_of_a_window_loses_no_candle(self, market) -> None:
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

    def test_feed_that_changes_after_the_registry_loses_no_candle(self, market) -> None:
        self.change(market, "5m", "1m")
        tick(market, run_of(self.NOON + 6 * MINUTE))
        changes = self.NOON + 3 * HOUR
        ingest(market, candles("A", "5m", self.NOON, changes))
        ingest(market, candles("A", "1m", changes, self.END))
        tick(market, run_of(self.END + MINUTE))
        assert qualities(market, "1d") == [(DAY, 1440, 1440, 2)]
        assert stored(market) == expected(market, self.END + MINUTE)

    @pytest.mark.parametrize(("before", "after"), [("5m", "1m"), ("1m", "5m")])
    def test_feeds_of_both_timeframes_are_not_counted_twice(self, market, before: str, after: str) -> None:
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

    def test_change_that_is_taken_back_keeps_what_was_built(self, market) -> None:
        self.change(market, "5m", "1m")
        tick(market, run_of(self.NOON + 6 * MINUTE))
        market.execute("update ohlcv.assets set base_timeframe = '5m'")
        ingest(market, candles("A", "5m", self.NOON, self.END))
        tick(market, run_of(self.END + MINUTE))
        assert qualities(market, "1d") == [(DAY, 288, 288, 2)]
        assert rebuild(market, self.END + 6 * MINUTE)["unchanged"] == 96 + 24 + 6 + 1

    def test_change_of_a_few_minutes_keeps_the_bars_that_it_made(self, market) -> None:
        self.change(market, "1m", "5m")
        ingest(market, [candle("A", "5m", DAY - HOUR)])
        tick(market, run_of(self.NOON + 6 * MINUTE))
        market.execute("update ohlcv.assets set base_timeframe = '1m'")
        ingest(market, candles("A", "1m", self.NOON, self.END))
        ingest(market, [candle("A", "5m", DAY - 2 * HOUR)])
        tick(market, run_of(self.END + MINUTE))
        assert stored(market) == expected(market, self.END + MINUTE)
        assert [bar[1:] for bar in qualities(market, "1d")] == [(2, 288, -1), (1440, 1440, 2)]

    def test_candles_of_the_former_timeframe_that_are_not_built_outlive_the_retention(self, market) -> None:
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

    def test_candles_of_a_timeframe_that_was_never_in_use_make_no_bars(self, market) -> None:
        register(market, {"A": "1m"})
        ingest(market, candles("A", "5m", DAY, self.NOON))
        tick(market, run_of(self.NOON + MINUTE))
        assert stored(market) == {}

    def test_candle_dated_in_the_future_does_not_keep_the_former_timeframe_in_use(self, market) -> None:
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


@pytest.mark.slow
class TestStart:
    """Symbols with ``starts_at``."""

    START = DAY + 12 * HOUR
    END = DAY + 24 * HOUR

    @pytest.fixture(autouse=True)
    def built(self, market) -> None:
        register(market, {"A": "5m"}, starts_at=self.START)
        ingest(market, candles("A", "5m", DAY - 24 * HOUR, self.END))
        tick(market, run_of(self.END + MINUTE))

    def test_rebuild_stores_no_bar_before_the_start(self, market) -> None:
        before = versions(market)
        rebuild(market, self.END + 6 * MINUTE)
        assert versions(market) == before
        assert min(ts for _, frame, ts in stored(market) if frame != "1d") == self.START

    def test_windows_marked_before_a_start_that_is_later_now_are_not_built(self, market) -> None:
        ingest(market, [candle("A", "5m", self.START + HOUR, 99.0), candle("A", "5m", self.END - HOUR, 99.0)])
        market.execute("select ohlcv.drain_candle_changes()")
        market.execute("update ohlcv.assets set starts_at = %s", [self.START + 6 * HOUR])
        totals = tick(market, run_of(self.END + 6 * MINUTE))
        assert totals["updated"] == 1 + 1 + 1 + 1, "one window of each timeframe"
        assert stored(market)["A", "15m", self.START + HOUR][1] != 100
        assert market.execute("select from ohlcv.stale_windows").fetchall() == []

    @pytest.mark.parametrize("start", [DAY, DAY - 5 * HOUR, DAY - timedelta(days=9999), None])
    def test_earlier_start_builds_the_time_before(self, market, start: datetime | None) -> None:
        market.execute("update ohlcv.assets set starts_at = %s", [start])
        tick(market, run_of(self.END + 6 * MINUTE))
        right = expected(market, self.END + 6 * MINUTE)
        if start == DAY - 5 * HOUR:
            right = {key: bar for key, bar in right.items() if key[2] >= start and key[1] not in {"4h", "1d"}}
            found = {key: bar for key, bar in stored(market).items() if key[1] not in {"4h", "1d"}}
            assert found == right
        else:
            assert stored(market) == {key: bar for key, bar in right.items() if start is None or key[2] >= start}

    def test_earlier_start_is_built_in_steps_of_the_limit(self, market) -> None:
        market.execute("update ohlcv.assets set starts_at = %s", [DAY])
        built = []
        for number in range(6):
            moment = self.END + 6 * MINUTE + number * 5 * MINUTE
            built.append(tick(market, run_of(moment, max_windows_per_task=10))["inserted"])
        assert built[0] == 10 + 3 + 1, "ten windows, and the bars that they are in"
        assert stored(market) == {key: bar for key, bar in expected(market, self.END + MINUTE).items() if key[2] >= DAY}

    def test_start_in_the_future_is_not_the_cursor(self, market) -> None:
        register(market, {"B": "5m"}, starts_at=self.END + timedelta(days=9999))
        ingest(market, candles("B", "5m", DAY, self.END))
        tick(market, run_of(self.END + 6 * MINUTE))
        market.execute("update ohlcv.assets set starts_at = %s", [DAY])
        as_of = self.END + 11 * MINUTE
        tick(market, run_of(as_of))
        assert stored(market) == {key: bar for key, bar in expected(market, as_of).items() if key[2] >= DAY}
        assert tasks(market, "cursor", "symbol = 'B' and timeframe = '15m'") == [(self.END,)]


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
def test_deleted_and_moved_candles_take_their_bars_along(market, statement: str) -> None:
    register(market, {"A": "5m"})
    ingest(market, candles("A", "5m", DAY, DAY + 9 * HOUR))
    tick(market, run_of(DAY + 9 * HOUR + MINUTE))
    market.execute(statement, [DAY + 4 * HOUR])
    as_of = DAY + timedelta(days=33) + MINUTE
    done = tick(market, run_of(as_of))
    assert stored(market) == expected(market, as_of)
    assert done["deleted"] >= 16 + 4 + 1


@pytest.mark.slow
def test_quiet_market_has_its_coarse_bars_and_takes_late_candles_after_them(market) -> None:
    register(market, {"A": "1m"})
    ingest(market, candles("A", "1m", DAY, DAY + 37 * MINUTE))
    as_of = DAY + 24 * HOUR + MINUTE
    done = tick(market, run_of(as_of))
    assert stored(market) == expected(market, as_of)
    assert ("A", "1d", DAY) in stored(market)
    assert tasks(market, "timeframe, cursor")[0] == ("15m", DAY + 45 * MINUTE), "the frontier is not passed"
    assert done["skipped_windows"] == 0
    ingest(market, [candle("A", "1m", DAY + 20 * HOUR, 77)])
    done = tick(market, run_of(as_of + 5 * MINUTE))
    assert stored(market) == expected(market, as_of + 5 * MINUTE)
    assert done["skipped_windows"] == (80 - 3) + (20 - 1) + (5 - 1)
    ingest(market, [candle("A", "1m", DAY + 3 * HOUR, 88)])
    done = tick(market, run_of(as_of + 10 * MINUTE))
    assert stored(market) == expected(market, as_of + 10 * MINUTE)
    assert done["skipped_windows"] == 0, "a late candle takes no task back"


POISON = {
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
@pytest.mark.parametrize("what", POISON.values(), ids=POISON.keys())
def test_poisoned_symbol_stops_at_its_window_and_no_other_does(market, what: dict[str, Any], caplog) -> None:
    symbols = [f"S{number}" for number in range(5)]
    register(market, dict.fromkeys(symbols, "5m"))
    for symbol in symbols:
        ingest(market, candles(symbol, "5m", DAY, DAY + HOUR))
    bad = DAY + 20 * MINUTE
    ingest(market, [candle("S3", "5m", bad, **what)])
    as_of = DAY + HOUR + MINUTE

    done = tick(market, run_of(as_of))

    assert (done["complete"], done["failed"]) == (True, 1)
    assert {key: bar for key, bar in stored(market).items() if key[0] != "S3"} == expected(market, as_of, but="S3")
    overflowed = what == POISON["overflow"]
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
    assert tick(market, run_of(as_of + 15 * MINUTE))["bars"] == 0, "it waits for somebody"
    market.execute("select ohlcv.reset_tasks('{S3}')")
    tick(market, run_of(as_of + 20 * MINUTE))
    assert stored(market) == expected(market, as_of + 20 * MINUTE)
    assert tasks(market, "status, hard_fails, last_error", "symbol = 'S3' and timeframe = '15m'") == [("idle", 0, None)]


@pytest.mark.slow
def test_correction_that_makes_no_bar_keeps_the_bar_until_it_is_mended(market) -> None:
    register(market, {"A": "5m"}, mandatory=True)
    ingest(market, candles("A", "5m", DAY, DAY + 2 * HOUR))
    moment = DAY + 2 * HOUR + MINUTE
    tick(market, run_of(moment))
    before = stored(market)
    ingest(market, [candle("A", "5m", DAY, volume=None)])
    for _ in range(3):
        moment += 5 * MINUTE
        tick(market, run_of(moment))
    assert stored(market) == before
    assert tasks(market, "status", "timeframe = '15m'") == [("hard_failed",)]
    ingest(market, [candle("A", "5m", DAY, 44)])
    market.execute("select ohlcv.reset_tasks()")
    tick(market, run_of(moment + 5 * MINUTE))
    assert stored(market) == expected(market, moment + 5 * MINUTE) != before


def test_refused_bars_do_not_stop_the_others(market) -> None:
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


class TestTimeOfARun:
    """A run builds as many windows as it has time for, at most `max_windows_per_task` of a task in a transaction."""

    AS_OF = DAY + 72 * HOUR + MINUTE

    @pytest.fixture(autouse=True)
    def backlog(self, market) -> None:
        register(market, {"A": "5m", "B": "5m"})
        ingest(market, candles("A", "5m", DAY, DAY + 24 * HOUR))
        # Two days without a candle in between.
        ingest(market, candles("A", "5m", DAY + 70 * HOUR, DAY + 72 * HOUR))
        ingest(market, candles("B", "5m", DAY + 71 * HOUR, DAY + 72 * HOUR))

    def details(self, market) -> dict[str, Any]:
        ((found,),) = market.execute(
            "select details from ops.ops_runlog, jsonb_array_elements(checkpoints) as details "
            "where details ->> 'name' = 'aggregated' order by ops_runlog.id desc limit 1"
        ).fetchall()
        return found

    def test_backlog_of_one_symbol_is_built_in_one_run(self, market) -> None:
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

    def test_windows_that_changed_are_built_again_in_one_run(self, market) -> None:
        tick(market, run_of(self.AS_OF))
        market.execute("update ohlcv.candles set high = high + 1")
        as_of = self.AS_OF + 5 * MINUTE
        tick(market, run_of(as_of, max_windows_per_task=10, repeat_until=FOREVER))
        assert stored(market) == expected(market, as_of)
        assert market.execute("select from ohlcv.stale_windows").fetchall() == []
        assert self.details(market)["transactions"] == 11

    def test_run_begins_no_transaction_that_would_not_fit(self, market) -> None:
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
                assert finish(cursor, run)["complete"]
        details = self.details(market)
        assert (details["transactions"], details["has_more"]) == (4, True)
        assert set(tasks(market, "status, owner")) == {("idle", None)}
        tick(market, run_of(self.AS_OF + 5 * MINUTE, max_windows_per_task=10, repeat_until=FOREVER))
        assert stored(market) == expected(market, self.AS_OF + 5 * MINUTE)

    def test_run_that_is_late_does_one_transaction(self, market) -> None:
        tick(market, run_of(self.AS_OF, max_windows_per_task=10, repeat_until=DAY - HOUR))
        assert len([key for key in stored(market) if key[:2] == ("A", "15m")]) == 10

    def test_many_shards_do_one_transaction_each(self, market, monkeypatch) -> None:
        monkeypatch.setattr("aggregator.ohlcv.aggregate.MAX_REPEATING_SHARDS", 1)
        run = run_of(self.AS_OF, max_windows_per_task=10, ohlcv_symbols_per_shard=1, repeat_until=FOREVER)
        tick(market, run)
        assert len([key for key in stored(market) if key[:2] == ("A", "15m")]) == 10

    def test_run_claims_no_more_tasks_than_its_limit(self, market) -> None:
        market.execute("update ohlcv.assets set mandatory = true where symbol = 'A'")
        tick(market, run_of(self.AS_OF, max_windows_per_task=10, max_tasks_per_run=1, repeat_until=FOREVER))
        assert {key[:2] for key in stored(market)} == {("A", "15m")}
        assert len(stored(market)) == 96 + 8

    def test_symbol_that_stops_at_a_bad_candle_ends_the_run(self, market) -> None:
        ingest(market, [candle("A", "5m", DAY + 12 * HOUR, open=None)])
        done = tick(market, run_of(self.AS_OF, max_windows_per_task=10, repeat_until=FOREVER))
        assert (done["failed"], done["complete"]) == (1, True)
        assert tasks(market, "cursor", "symbol = 'A' and timeframe = '15m'") == [(DAY + 12 * HOUR,)]
        assert set(tasks(market, "status")) == {("idle",)}

    @pytest.mark.parametrize("then", ["another try", "the next run", "a taken-over lock"])
    def test_run_that_dies_between_transactions_loses_nothing(self, market, then: str) -> None:
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
        if then == "another try":
            aggregate(partial(transaction, market), run, **shard)
        elif then == "the next run":
            with transaction(market) as cursor:
                assert not finish(cursor, run)["complete"]
        else:
            market.execute("update ohlcv.tasks set claimed_at = claimed_at - interval '901 seconds'")
        as_of = self.AS_OF + 5 * MINUTE
        tick(market, run_of(as_of, max_windows_per_task=10, repeat_until=FOREVER))
        assert stored(market) == expected(market, as_of)
        assert set(tasks(market, "status, owner")) == {("idle", None)}
        ((built,),) = market.execute("select sum(total_bars) from ohlcv.tasks").fetchall()
        assert built == len(stored(market)), "no bar was built twice"


@pytest.mark.slow
class TestLocks:
    @pytest.fixture(autouse=True)
    def candles(self, market) -> None:
        register(market, {"A": "5m", "B": "5m"})
        for symbol in "AB":
            ingest(market, candles(symbol, "5m", DAY, DAY + HOUR))

    AS_OF = DAY + HOUR + MINUTE

    ONE: ClassVar = [{"shard": 0, "of": 1, "first": "A", "last": "B"}]
    TWO: ClassVar = [{"shard": n, "of": 2, "first": symbol, "last": symbol} for n, symbol in enumerate("AB")]

    def plan(self, connection, run: Run) -> list[dict[str, Any]]:
        with transaction(connection) as cursor:
            return plan(cursor, run)

    def aggregate(self, connection, run: Run) -> Totals:
        return aggregate(partial(transaction, connection), run, shard=0, of=1)

    def test_two_ticks_share_what_is_due_and_neither_waits(self, market, other) -> None:
        one, two = run_of(self.AS_OF, "one", max_tasks_per_run=3), run_of(self.AS_OF, "two")
        assert self.plan(market, one)
        with other.transaction(), other.cursor() as cursor:
            cursor.execute("set local lock_timeout = '1s'")
            assert plan(cursor, two)
        assert (self.aggregate(market, one).tasks, self.aggregate(other, two).tasks) == (3, 5)
        tick(market, run_of(self.AS_OF + 5 * MINUTE))
        assert stored(market) == expected(market, self.AS_OF)

    def test_claims_of_a_run_that_died_are_taken_over_when_they_are_old_and_its_late_worker_stores_nothing(
        self, market, other
    ) -> None:
        dead = run_of(self.AS_OF, "dead")
        self.plan(market, dead)
        assert self.plan(market, run_of(self.AS_OF, "next")) == []
        market.execute("update ohlcv.tasks set claimed_at = claimed_at - interval '901 seconds'")
        assert self.plan(market, run_of(self.AS_OF, "next")) == self.ONE
        assert self.aggregate(other, dead).tasks == 0
        assert stored(market) == {}
        assert self.aggregate(market, run_of(self.AS_OF, "next")).tasks == 8
        assert stored(market) == expected(market, self.AS_OF)

    def test_old_claim_whose_worker_is_at_work_is_left_to_it(self, market, other) -> None:
        slow = run_of(self.AS_OF, "slow")
        self.plan(market, slow)
        market.execute("update ohlcv.tasks set claimed_at = claimed_at - interval '901 seconds'")
        with transaction(other) as cursor:
            aggregate(lambda: nullcontext(cursor), slow, shard=0, of=1)
            assert self.plan(market, run_of(self.AS_OF, "next")) == []
        assert stored(market) == expected(market, self.AS_OF)

    def test_candle_that_comes_while_another_tick_has_read_and_not_stored_yet_is_not_missed(
        self, market, other
    ) -> None:
        slow = run_of(self.AS_OF, "slow")
        self.plan(market, slow)
        with transaction(other) as cursor:
            aggregate(lambda: nullcontext(cursor), slow, shard=0, of=1)
            ingest(market, [candle("A", "5m", DAY, 99)])
            self.plan(market, run_of(self.AS_OF, "next"))
        tick(market, run_of(self.AS_OF + 5 * MINUTE))
        assert stored(market) == expected(market, self.AS_OF)

    def test_lost_lock_rolls_everything_back(self, market, other) -> None:
        run = run_of(self.AS_OF, "late")
        self.plan(market, run)
        market.execute(
            "create table public.result as select r from ohlcv.aggregate('late', '15m', '{A}', now(), 9, 1) as r"
        )
        market.execute("delete from ohlcv.bars")
        market.execute("update ohlcv.tasks set owner = 'another' where symbol = 'A' and timeframe = '15m'")
        with pytest.raises(psycopg.errors.LockNotAvailable, match="1 of 1 tasks do not belong to late"):
            other.execute("select ohlcv.agg_finish('late', r) from public.result")
        assert set(tasks(market, "status, total_runs")) == {("running", 0)}

    def test_second_try_of_the_same_run_does_what_the_first_has_claimed(self, market) -> None:
        run = run_of(self.AS_OF, "again")
        self.plan(market, run)
        assert self.plan(market, run) == self.ONE
        assert self.aggregate(market, run).tasks == 8

    def test_run_whose_aggregation_failed_frees_its_claims_and_says_so(self, market) -> None:
        run = run_of(self.AS_OF, "failed")
        self.plan(market, run)
        with transaction(market) as cursor:
            assert not finish(cursor, run)["complete"]
        assert set(tasks(market, "status, hard_fails, owner")) == {("idle", 0, None)}
        assert market.execute("select status, error from ops.ops_runlog").fetchone() == (
            "failed",
            "1 shards planned, 0 done, 8 tasks released",
        )

    def test_plan_that_failed_is_an_incomplete_run(self, market) -> None:
        with transaction(market) as cursor:
            assert finish(cursor, run_of(self.AS_OF)) == {"complete": False}

    def test_backlog_is_divided_though_its_symbols_are_few(self, market, monkeypatch) -> None:
        monkeypatch.setattr("aggregator.ohlcv.plan.WINDOWS_PER_SHARD", 3)
        many = self.plan(market, run_of(self.AS_OF, "many"))
        assert many == self.TWO, "four windows of each symbol, and two symbols"
        with transaction(market) as cursor:
            finish(cursor, run_of(self.AS_OF, "many"))
        few = run_of(self.AS_OF, "few", max_windows_per_task=1)
        assert self.plan(market, few) == self.ONE

    def test_many_symbols_are_divided_though_they_are_not_too_many_for_a_shard(self, market, monkeypatch) -> None:
        monkeypatch.setattr("aggregator.ohlcv.plan.MIN_SYMBOLS_TO_DIVIDE", 2)
        assert self.plan(market, run_of(self.AS_OF)) == self.TWO

    def test_shards_divide_the_symbols_evenly(self, market) -> None:
        run = run_of(self.AS_OF, ohlcv_symbols_per_shard=1)
        shards = self.plan(market, run)
        assert shards == self.TWO
        done = [aggregate(partial(transaction, market), run, **shard).tasks for shard in shards]
        assert sum(done) == 8
        assert stored(market) == expected(market, self.AS_OF)
