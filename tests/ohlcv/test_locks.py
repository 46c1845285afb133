"""Claims of concurrent, killed and retried runs, and the division into shards."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import Any, ClassVar

import psycopg
import pytest

from aggregator.ohlcv.aggregate import aggregate
from aggregator.ohlcv.plan import plan
from aggregator.ohlcv.run import Outcome, Run, Totals, finish
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
    transaction,
)

pytestmark = pytest.mark.usefixtures("new_york")


@pytest.mark.slow
class TestLocks:
    @pytest.fixture(autouse=True)
    def candles(self, market: psycopg.Connection, new_york: None) -> None:
        register(market, {"A": "5m", "B": "5m"})
        for symbol in "AB":
            ingest(market, candles(symbol, "5m", DAY, DAY + HOUR))

    AS_OF = DAY + HOUR + MINUTE

    ONE: ClassVar = [{"shard": 0, "of": 1, "first": "A", "last": "B"}]
    TWO: ClassVar = [{"shard": n, "of": 2, "first": symbol, "last": symbol} for n, symbol in enumerate("AB")]

    def plan(self, connection: psycopg.Connection, run: Run) -> list[dict[str, Any]]:
        with transaction(connection) as cursor:
            return plan(cursor, run)

    def aggregate(self, connection: psycopg.Connection, run: Run) -> Totals:
        return aggregate(partial(transaction, connection), run, shard=0, of=1)

    def test_two_runs_share_the_due_tasks_without_waiting(
        self, market: psycopg.Connection, other: psycopg.Connection
    ) -> None:
        one, two = run_of(self.AS_OF, "one", max_tasks_per_run=3), run_of(self.AS_OF, "two")
        assert self.plan(market, one)
        with other.transaction(), other.cursor() as cursor:
            cursor.execute("set local lock_timeout = '1s'")
            assert plan(cursor, two)
        assert (self.aggregate(market, one).tasks, self.aggregate(other, two).tasks) == (3, 5)
        tick(market, run_of(self.AS_OF + 5 * MINUTE))
        assert stored(market) == expected(market, self.AS_OF)

    def test_stale_claims_are_taken_over_and_their_late_worker_stores_nothing(
        self, market: psycopg.Connection, other: psycopg.Connection
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

    def test_stale_claim_with_an_open_transaction_is_not_taken_over(
        self, market: psycopg.Connection, other: psycopg.Connection
    ) -> None:
        slow = run_of(self.AS_OF, "slow")
        self.plan(market, slow)
        market.execute("update ohlcv.tasks set claimed_at = claimed_at - interval '901 seconds'")
        with transaction(other) as cursor:
            aggregate(lambda: nullcontext(cursor), slow, shard=0, of=1)
            assert self.plan(market, run_of(self.AS_OF, "next")) == []
        assert stored(market) == expected(market, self.AS_OF)

    def test_candle_inserted_after_another_run_has_read_is_not_missed(
        self, market: psycopg.Connection, other: psycopg.Connection
    ) -> None:
        slow = run_of(self.AS_OF, "slow")
        self.plan(market, slow)
        with transaction(other) as cursor:
            aggregate(lambda: nullcontext(cursor), slow, shard=0, of=1)
            ingest(market, [candle("A", "5m", DAY, 99)])
            self.plan(market, run_of(self.AS_OF, "next"))
        tick(market, run_of(self.AS_OF + 5 * MINUTE))
        assert stored(market) == expected(market, self.AS_OF)

    def test_lost_lock_rolls_everything_back(self, market: psycopg.Connection, other: psycopg.Connection) -> None:
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

    def test_retry_processes_the_claims_of_the_first_attempt(self, market: psycopg.Connection) -> None:
        run = run_of(self.AS_OF, "again")
        self.plan(market, run)
        assert self.plan(market, run) == self.ONE
        assert self.aggregate(market, run).tasks == 8

    def test_failed_aggregation_releases_its_claims(self, market: psycopg.Connection) -> None:
        run = run_of(self.AS_OF, "failed")
        self.plan(market, run)
        with transaction(market) as cursor:
            assert not finish(cursor, run).is_closed
        assert set(tasks(market, "status, hard_fails, owner")) == {("idle", 0, None)}
        assert market.execute("select status, error from ops.ops_runlog").fetchone() == (
            "failed",
            "1 shards planned, 0 done, 8 tasks released",
        )

    def test_run_without_a_plan_is_incomplete(self, market: psycopg.Connection) -> None:
        with transaction(market) as cursor:
            assert finish(cursor, run_of(self.AS_OF)) == Outcome(None, 0, is_closed=False, totals={})

    def test_backlog_of_few_symbols_is_divided_by_windows(
        self, market: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("aggregator.ohlcv.plan.WINDOWS_PER_SHARD", 3)
        many = self.plan(market, run_of(self.AS_OF, "many"))
        assert many == self.TWO, "four windows for each of two symbols"
        with transaction(market) as cursor:
            finish(cursor, run_of(self.AS_OF, "many"))
        few = run_of(self.AS_OF, "few", max_windows_per_task=1)
        assert self.plan(market, few) == self.ONE

    def test_many_symbols_are_divided_although_one_shard_could_hold_them(
        self, market: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("aggregator.ohlcv.plan.MIN_SYMBOLS_TO_DIVIDE", 2)
        assert self.plan(market, run_of(self.AS_OF)) == self.TWO

    def test_symbols_are_divided_evenly(self, market: psycopg.Connection) -> None:
        run = run_of(self.AS_OF, ohlcv_symbols_per_shard=1)
        shards = self.plan(market, run)
        assert shards == self.TWO
        done = [aggregate(partial(transaction, market), run, **shard).tasks for shard in shards]
        assert sum(done) == 8
        assert stored(market) == expected(market, self.AS_OF)
