"""Tasks: the registry that defines them, claims, order, start, and concurrent sessions."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor, wait

import psycopg
import pytest

from aggregator.ohlcv.run import TIMEFRAMES
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
    versions,
)


@pytest.mark.slow
def test_due_tasks_are_ordered_by_mandatory_timeframe_priority_and_last_attempt(market: psycopg.Connection) -> None:
    register(market, {"Z must": "5m"}, mandatory=True)
    register(market, {"Y soon": "5m"}, priority=1)
    register(market, {"A": "5m", "B": "5m"})
    market.execute("select ohlcv.sync_tasks()")
    market.execute("update ohlcv.tasks set last_attempt_at = now() where symbol = 'A'")
    market.execute("update ohlcv.tasks set enabled = false where timeframe = '4h'")
    due = market.execute("select symbol, timeframe from ohlcv.agg_get_due_tasks('PROD', now(), 100)").fetchall()
    must = [("Z must", frame) for frame in ("15m", "1h", "1d")]
    assert due == must + [(symbol, frame) for frame in ("15m", "1h", "1d") for symbol in ("Y soon", "B", "A")]


@pytest.mark.slow
def test_change_of_the_registry_creates_and_updates_tasks(market: psycopg.Connection) -> None:
    def synchronized() -> int:
        ((changed,),) = market.execute("select ohlcv.sync_tasks()").fetchall()
        return int(changed)

    register(market, {"A": "1m", "B": "5m"})
    assert [synchronized(), synchronized()] == [8, 0]
    market.execute("update ohlcv.tasks set cursor = %s, built_until = %s", [DAY, DAY])
    register(market, {"C": "5m"})
    assert [synchronized(), synchronized()] == [4, 0]
    market.execute("delete from ohlcv.tasks where symbol = 'B' and timeframe = '4h'")
    assert [synchronized(), synchronized()] == [1, 0]
    market.execute(
        "update ohlcv.assets set base_timeframe = '5m', mandatory = true, priority = 7, starts_at = %s "
        "where symbol = 'A'",
        [DAY],
    )
    assert [synchronized(), synchronized()] == [4, 0]
    market.execute("delete from ohlcv.assets where symbol = 'B'")
    assert synchronized() == 0
    assert tasks(market, "symbol, timeframe, source_timeframe, mandatory, priority, starts_at, cursor") == [
        (symbol, frame, source, symbol == "A", priority, start, cursor)
        for symbol, priority, start, cursor in (("A", 7, DAY, DAY), ("C", 100, None, None))
        for frame, source in (("15m", "5m"), ("1h", "15m"), ("4h", "1h"), ("1d", "4h"))
    ]


@pytest.mark.slow
def test_recreated_tasks_rewrite_only_wrong_and_missing_bars(market: psycopg.Connection) -> None:
    register(market, {"A": "5m"})
    ingest(market, candles("A", "5m", DAY, DAY + 24 * HOUR))
    tick(market, run_of(DAY + 24 * HOUR + MINUTE))
    bars = stored(market)
    market.execute("delete from ohlcv.tasks")
    wrong = ("high = high + 1", "expected_candles = 99", "derivation_version = 9")
    for hour, value in enumerate(wrong):
        market.execute(f"update ohlcv.bars set {value} where timeframe = '1h' and ts = %s", [DAY + hour * HOUR])
    market.execute("delete from ohlcv.bars where timeframe = '1h' and ts = %s", [DAY + 9 * HOUR])
    before = versions(market)
    totals = tick(market, run_of(DAY + 24 * HOUR + 6 * MINUTE))
    assert stored(market) == bars
    assert market.execute("select distinct derivation_version from ohlcv.bars").fetchall() == [(1,)]
    assert len(set(versions(market)) - set(before)) == 4
    assert (totals["inserted"], totals["updated"], totals["unchanged"]) == (1, 3, len(bars) - 4)


@pytest.mark.slow
def test_registry_change_beside_a_tick_waits_without_a_deadlock(market: psycopg.Connection, database_url: str) -> None:
    register(market, {"A": "5m"})
    market.execute("select ohlcv.sync_tasks()")
    market.execute(
        "update ohlcv.tasks set cursor = now() where timeframe = '15m'"
    )  # it is the last one in the table now
    market.execute("update ohlcv.assets set priority = 1")
    lock = "select from ohlcv.tasks where timeframe = %s for no key update"
    with psycopg.connect(database_url, autocommit=True) as connection, ThreadPoolExecutor(1) as threads:
        with psycopg.connect(database_url) as working:
            working.execute("set lock_timeout = '2s'")
            working.execute(lock, ["15m"])
            changed = threads.submit(lambda: connection.execute("select ohlcv.sync_tasks()").fetchone())
            waiting = "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
            while not changed.done() and market.execute(waiting).fetchone() is None:
                wait([changed], 0.02)
            for timeframe in TIMEFRAMES[1:]:
                working.execute(lock, [timeframe])
        assert changed.result() == (4,)


STORE_BAR = """
insert into ohlcv.bars (symbol, timeframe, ts, open, high, low, close, volume, price_volume, candles, expected_candles,
    derivation_version)
values ('A', '15m', %s, 1, 1, 1, 1, 1, 1, 1, 1, 1)
"""


@pytest.mark.slow
@pytest.mark.parametrize("symbols", ["A", "AB"])
@pytest.mark.parametrize("statement", [STORE_BAR, "update ohlcv.bars set high = 1000 where symbol = 'A' and ts < %s"])
def test_bar_written_by_another_session_during_a_tick_is_corrected(
    market: psycopg.Connection, database_url: str, symbols: str, statement: str
) -> None:
    register(market, dict.fromkeys(symbols, "5m"))
    for symbol in symbols:
        ingest(market, candles(symbol, "5m", DAY, DAY + HOUR))
    tick(market, run_of(DAY + 31 * MINUTE))
    ingest(market, [candle("A", "5m", DAY, 99), candle("A", "5m", DAY + 15 * MINUTE, 99)])
    as_of = DAY + HOUR + MINUTE
    with psycopg.connect(database_url, autocommit=True) as connection, ThreadPoolExecutor(1) as threads:
        with psycopg.connect(database_url) as other:
            other.execute(statement, [DAY + 30 * MINUTE])
            totals = threads.submit(tick, connection, run_of(as_of))
            waiting = "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
            while not totals.done() and market.execute(waiting).fetchone() is None:
                wait([totals], 0.02)
            assert not totals.done()
        assert totals.result()["failed"] == 0
    assert stored(market) == expected(market, as_of)


@pytest.mark.slow
def test_task_claimed_in_an_open_transaction_is_skipped_without_waiting(
    market: psycopg.Connection, database_url: str
) -> None:
    register(market, {"A": "5m"})
    market.execute("select ohlcv.sync_tasks(); set lock_timeout = '1s'")
    with psycopg.connect(database_url) as other:
        other.execute("select ohlcv.agg_start('A', '15m', 'another owner')")
        assert market.execute("select * from ohlcv.agg_start('A', '15m', 'me')").fetchall() == []
        assert market.execute("select * from ohlcv.agg_start('A', '1h', 'me')").fetchall() == [(None,)]


@pytest.mark.slow
def test_cursor_starts_at_starts_at_or_first_candle_and_transient_failures_keep_hard_fails(
    market: psycopg.Connection,
) -> None:
    register(market, {"A": "5m"})
    register(market, {"B": "5m"}, starts_at=DAY + 100 * MINUTE)
    for symbol in "AB":
        ingest(market, candles(symbol, "5m", DAY + 20 * MINUTE, DAY + 3 * HOUR))
    market.execute("select ohlcv.sync_tasks()")
    begins = "select ohlcv.agg_bootstrap_cursor(%s, '15m')"
    assert market.execute(begins, ["A"]).fetchone() == (DAY + 15 * MINUTE,)
    assert market.execute(begins, ["B"]).fetchone() == (DAY + 90 * MINUTE,)
    tick(market, run_of(DAY + 3 * HOUR + MINUTE))
    assert min(ts for symbol, _, ts in stored(market) if symbol == "B") == DAY + 60 * MINUTE
    assert min(ts for symbol, frame, ts in stored(market) if (symbol, frame) == ("B", "15m")) == DAY + 90 * MINUTE
    ingest(market, [candle("B", "5m", DAY, 99)])
    tick(market, run_of(DAY + 3 * HOUR + 6 * MINUTE))
    assert min(ts for symbol, _, ts in stored(market) if symbol == "B") == DAY + 60 * MINUTE, "nothing before the start"

    failed = """
        select ohlcv.agg_finish('me', jsonb_populate_record(
            null::ohlcv.task_result, jsonb_build_object('symbol', 'A', 'timeframe', '15m', 'outcome', %s::text)
        ))
    """
    for outcome in ("hard", "transient", "transient", "hard"):
        market.execute("select ohlcv.agg_start('A', '15m', 'me')")
        market.execute(failed, [outcome]) if outcome == "transient" else market.execute(
            failed.replace("'outcome'", "'error', 'an error', 'outcome'"), [outcome]
        )
    assert tasks(market, "status, hard_fails", "symbol = 'A' and timeframe = '15m'") == [("idle", 2)]


@pytest.mark.slow
def test_rename_of_an_asset_with_tasks_is_refused_and_the_documented_way_moves_its_bars(
    market: psycopg.Connection,
) -> None:
    register(market, {"OLD": "5m", "TYPO": "5m"})
    market.execute("update ohlcv.assets set symbol = 'RIGHT' where symbol = 'TYPO'")
    ingest(market, candles("OLD", "5m", DAY, DAY + 2 * HOUR))
    tick(market, run_of(DAY + 2 * HOUR + MINUTE))
    market.execute("update ohlcv.assets set base_timeframe = '1m' where symbol = 'OLD'")
    ingest(market, candles("OLD", "1m", DAY + 2 * HOUR, DAY + 3 * HOUR))
    tick(market, run_of(DAY + 3 * HOUR + MINUTE))
    before = stored(market)
    refused = r"'OLD' is not renamed to 'NEW'.* Nothing was changed\. Insert the asset"
    with pytest.raises(psycopg.Error, match=refused) as error:
        market.execute("update ohlcv.assets set symbol = 'NEW' where symbol = 'OLD'")
    register(market, {"NEW": "1m"})
    for statement in re.findall(r"\((insert .*?|update .*?)\)", str(error.value)):
        market.execute(statement)
    as_of = DAY + 3 * HOUR + 6 * MINUTE
    tick(market, run_of(as_of))
    market.execute("delete from ohlcv.assets where symbol = 'OLD'")
    assert stored(market) == expected(market, as_of)
    assert {("OLD", *key[1:]): bar for key, bar in stored(market).items()} == before


@pytest.mark.slow
def test_claim_returns_the_cursor_that_another_owner_stored_while_it_waited(
    market: psycopg.Connection, database_url: str
) -> None:
    register(market, {"A": "5m"})
    market.execute("select ohlcv.sync_tasks()")
    with psycopg.connect(database_url, autocommit=True) as other, ThreadPoolExecutor(1) as threads:
        # As long as a run turns candle changes into stale windows, claims wait.
        with market.transaction():
            market.execute("select pg_advisory_xact_lock(hashtext('ohlcv.candle_changes'))")
            claim = threads.submit(other.execute, "select * from ohlcv.agg_start('A', '15m', 'me')")
            waiting = "select from pg_stat_activity where pid = %s and wait_event_type = 'Lock'"
            while market.execute(waiting, [other.info.backend_pid]).fetchone() is None:
                wait([claim], 0.02)
            market.execute("update ohlcv.tasks set cursor = %s where timeframe = '15m'", [DAY])
        assert claim.result().fetchall() == [(DAY,)]
