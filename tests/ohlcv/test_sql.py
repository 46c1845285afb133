"""The market database: its functions from psql, its triggers and partitions, and much of everything."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import psycopg
import pytest

from aggregator.ohlcv.aggregation import TIMEFRAMES, aggregate, plan, prepare_partitions
from aggregator.ohlcv.cli import HEALTHY_TASKS, main
from aggregator.postgres.migrations import databases, migrate
from tests.market_data import (
    DAY,
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

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOUR = 60 * MINUTE
DAYS = timedelta(days=1)
ALIGNED = "ts_is_a_whole_step_of_its_timeframe_1m_or_5m_in_utc"
OURS = "pronamespace in ('ohlcv'::regnamespace, 'ops'::regnamespace)"


@pytest.fixture
def market(migrated) -> psycopg.Connection:
    """An autocommit connection to a migrated, empty database."""
    connection = migrated("market")
    connection.execute("select ohlcv.add_candle_partitions(%s, %s)", [DAY, DAY])
    return connection


def test_functions_are_described_closed_and_safe_from_the_callers_search_path(market) -> None:
    names = {name for (name,) in market.execute(f"select proname from pg_proc where {OURS}")}
    assert names >= {
        "agg_get_due_tasks",
        "agg_start",
        "agg_bootstrap_cursor",
        "catchup_aggregation_range",
        "agg_finish",
        "ops_runlog_start",
        "ops_runlog_checkpoint",
        "ops_runlog_finish",
        "ops_runlog_prune",
    }
    careless = f"""
        select proname from pg_proc
        where {OURS} and (
            obj_description(oid, 'pg_proc') is null
            or not coalesce(proconfig, '{{}}') @> array['search_path=""']
            or has_function_privilege('public', oid, 'execute')
        )
    """
    assert market.execute(careless).fetchall() == []


@pytest.mark.slow
def test_one_task_at_a_time_gives_the_bars_and_the_state_that_all_at_once_give(market) -> None:
    symbols = {"A": "1m", "B": "5m", "C\"'; --": "5m"}
    register(market, symbols)
    for symbol, base in symbols.items():
        rows = candles(symbol, base, DAY - 5 * HOUR, DAY + 30 * HOUR)
        ingest(market, [row for number, row in enumerate(rows) if number % 11])
    ingest(market, [candle("B", "5m", DAY + 20 * HOUR, volume=None)])
    as_of = DAY + 30 * HOUR + MINUTE
    state = """
        symbol, timeframe, cursor, built_until, status, hard_fails, total_runs, total_bars, total_poor_bars,
        total_skipped_windows, next_run_at, last_error
    """
    tick(market, run_of(as_of))
    at_once = (stored(market), tasks(market, state))
    market.execute("delete from ohlcv.bars; delete from ohlcv.tasks; select ohlcv.sync_tasks()")

    due = market.execute("select symbol, timeframe from ohlcv.agg_get_due_tasks('PROD', %s, 100)", [as_of]).fetchall()
    for symbol, timeframe in due:
        started = market.execute("select * from ohlcv.agg_start(%s, %s, 'me')", [symbol, timeframe]).fetchall()
        assert started == [(None,)]
        assert market.execute("select * from ohlcv.agg_start(%s, %s, 'you')", [symbol, timeframe]).fetchall() == []
        market.execute(
            "select ohlcv.agg_finish('me', r) from ohlcv.catchup_aggregation_range(%s, %s, 'me', %s, 100000) as r",
            [symbol, timeframe, as_of],
        )

    assert (stored(market), tasks(market, state)) == at_once
    assert [row[1] for row in due] == [frame for frame in TIMEFRAMES for _ in symbols], "the shorter one first"


@pytest.mark.slow
def test_due_tasks_come_mandatory_first_then_by_minutes_priority_and_waiting(market) -> None:
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
def test_registry_decides_which_tasks_there_are_and_what_they_are_like(market) -> None:
    def synchronised() -> int:
        return market.execute("select ohlcv.sync_tasks()").fetchone()[0]

    register(market, {"A": "1m", "B": "5m"})
    assert [synchronised(), synchronised()] == [8, 0]
    market.execute("update ohlcv.tasks set cursor = %s, built_until = %s", [DAY, DAY])
    register(market, {"C": "5m"})
    assert [synchronised(), synchronised()] == [4, 0]
    market.execute("delete from ohlcv.tasks where symbol = 'B' and timeframe = '4h'")
    assert [synchronised(), synchronised()] == [1, 0]
    market.execute(
        "update ohlcv.assets set base_timeframe = '5m', mandatory = true, priority = 7, starts_at = %s "
        "where symbol = 'A'",
        [DAY],
    )
    assert [synchronised(), synchronised()] == [4, 0]
    market.execute("delete from ohlcv.assets where symbol = 'B'")
    assert synchronised() == 0
    assert tasks(market, "symbol, timeframe, source_timeframe, mandatory, priority, starts_at, cursor") == [
        (symbol, frame, source, symbol == "A", priority, start, cursor)
        for symbol, priority, start, cursor in (("A", 7, DAY, DAY), ("C", 100, None, None))
        for frame, source in (("15m", "5m"), ("1h", "15m"), ("4h", "1h"), ("1d", "4h"))
    ]


@pytest.mark.slow
def test_tasks_that_are_made_anew_keep_what_is_right_of_the_bars_they_find(market) -> None:
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
def test_statistics_of_a_moment_when_all_tasks_ran_do_not_compare_each_task_with_each(market) -> None:
    market.execute(
        "insert into ohlcv.assets (symbol, base_timeframe) select 'S' || n, '5m' from generate_series(1, 500) n"
    )
    market.execute("select ohlcv.sync_tasks(); update ohlcv.tasks set status = 'running', owner = 'me'")
    market.execute("vacuum analyze ohlcv.tasks")
    market.execute("update ohlcv.tasks set status = 'idle', owner = null")
    market.execute("load 'auto_explain'; set auto_explain.log_min_duration = 0; set client_min_messages = log")
    market.execute("set auto_explain.log_nested_statements = on")
    plans: list[str] = []
    market.add_notice_handler(lambda diagnostic: plans.append(diagnostic.message_primary or ""))
    claimed = """
        select ohlcv.claim_tasks('me', array_agg(symbol), array_agg(timeframe))
        from ohlcv.agg_get_due_tasks('PROD', now(), 700)
    """
    assert market.execute(claimed).fetchall() == [(700,)]
    assert [plan for plan in plans if "Update on tasks" in plan]
    assert [plan for plan in plans if "Nested Loop" in plan] == []


@pytest.mark.slow
def test_changes_of_the_registry_and_a_tick_wait_for_each_other_in_one_order(market, database_url: str) -> None:
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
def test_bar_that_somebody_writes_in_the_middle_of_a_tick_is_built_all_the_same(
    market, database_url: str, symbols: str, statement: str
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
def test_task_that_somebody_else_is_just_claiming_is_not_waited_for(market, database_url: str) -> None:
    register(market, {"A": "5m"})
    market.execute("select ohlcv.sync_tasks(); set lock_timeout = '1s'")
    with psycopg.connect(database_url) as other:
        other.execute("select ohlcv.agg_start('A', '15m', 'somebody else')")
        assert market.execute("select * from ohlcv.agg_start('A', '15m', 'me')").fetchall() == []
        assert market.execute("select * from ohlcv.agg_start('A', '1h', 'me')").fetchall() == [(None,)]


@pytest.mark.slow
def test_cursor_begins_at_the_start_or_the_first_candle_and_transient_failures_keep_the_streak(market) -> None:
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
            failed.replace("'outcome'", "'error', 'told', 'outcome'"), [outcome]
        )
    assert tasks(market, "status, hard_fails", "symbol = 'A' and timeframe = '15m'") == [("idle", 2)]


@pytest.mark.slow
def test_feed_needs_no_rights_but_those_on_candles_and_may_write_to_partitions(market) -> None:
    register(market, {"A": "1m"})
    ingest(market, candles("A", "1m", DAY, DAY + HOUR))
    tick(market, run_of(DAY + HOUR + MINUTE))
    market.execute("create role feed_of_the_test; grant usage on schema ohlcv to feed_of_the_test")
    try:
        market.execute("grant select, insert, update on ohlcv.candles, ohlcv.candles_202603 to feed_of_the_test")
        market.execute("set role feed_of_the_test")
        market.execute("update ohlcv.candles_202603 set high = 77 where ts = %s", [DAY])
        market.execute("reset role")
    finally:
        market.execute("reset role; drop owned by feed_of_the_test; drop role feed_of_the_test")
    tick(market, run_of(DAY + HOUR + 6 * MINUTE))
    assert stored(market)["A", "1h", DAY][1] == 77


@pytest.mark.parametrize(
    ("statement", "says"),
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
def test_what_cannot_be_a_candle_is_refused(market, statement: str, says: str) -> None:
    with pytest.raises(psycopg.Error, match=says):
        market.execute(statement)


@pytest.mark.slow
@pytest.mark.parametrize("table", ["ohlcv.candles", "ohlcv.candles_202603"])
def test_candles_loaded_while_ordinary_triggers_are_off_are_built(market, table: str) -> None:
    register(market, {"A": "5m"})
    ingest(market, candles("A", "5m", DAY, DAY + 4 * HOUR))
    tick(market, run_of(DAY + 4 * HOUR + MINUTE))
    for number, statement in enumerate(
        (
            f"delete from {table} where ts < '2026-03-08 01:00+00'",
            f"update {table} set high = 999 where ts = '2026-03-08 02:00+00'",
            f"insert into {table} values ('A', '5m', '2026-03-08 00:00+00', 10, 11, 9, 10, 1, 1)",
        )
    ):
        with market.transaction():
            market.execute("set local session_replication_role = replica")
            market.execute(statement)
        moment = DAY + 4 * HOUR + (6 + 5 * number) * MINUTE
        tick(market, run_of(moment))
        assert stored(market) == expected(market, moment), statement


@pytest.mark.slow
@pytest.mark.parametrize(
    "statement",
    [
        "truncate ohlcv.candles",
        "truncate ohlcv.candles_202603",
        "insert into ohlcv.candles values ('A', '1m', '1999-03-08+00')",
    ],
)
def test_statement_refused_by_a_trigger_is_refused_while_ordinary_triggers_are_off(market, statement: str) -> None:
    market.execute("set session_replication_role = replica")
    with pytest.raises(psycopg.Error, match=r"Candles are not truncated|no partition for a candle of 1999"):
        market.execute(statement)


def test_every_trigger_of_the_repository_fires_while_ordinary_triggers_are_off(migrated) -> None:
    connection = migrated(*databases())
    found = connection.execute(
        "select tgrelid::regclass::text, tgname, tgenabled::text from pg_trigger where not tgisinternal"
    ).fetchall()
    tables = {table for table, _, _ in found}
    assert tables >= {"ohlcv.candles", "ohlcv.candles_elsewhere", "kpi.job_kpis"}
    assert [trigger for trigger in found if trigger[2] != "A"] == []


@pytest.mark.slow
def test_partitions_made_before_their_triggers_always_fired_fire_always_after_an_upgrade(market, database_url) -> None:
    market.execute("alter table ohlcv.candles_202603 enable trigger user")
    market.execute("delete from migrations.functions where name = 'watch_candles'")
    migrate(partial(psycopg.connect, database_url), "market")
    enabled = "select distinct tgenabled::text from pg_trigger where tgrelid = 'ohlcv.candles_202603'::regclass"
    assert market.execute(enabled).fetchall() == [("A",)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("range_", "says"),
    [
        ("now(), 'infinity'", "from 1900 to 2199"),
        ("'-infinity', now()", "from 1900 to 2199"),
        ("'0099-01-01', now()", "from 1900 to 2199"),
        ("'infinity', now()", "from 1900 to 2199"),
        ("null, null", "No partition was added"),
        ("now(), '2200-01-01'", "from 1900 to 2199"),
        ("now(), '2100-01-01'", "more than 600 months"),
        ("'1950-01-01', '2000-01-01'", "more than 600 months"),
    ],
)
def test_add_candle_partitions_with_a_range_without_end_is_refused(market, range_: str, says: str) -> None:
    before = market.execute("select count(*) from ohlcv.candle_partitions()").fetchone()
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=says):
        market.execute(f"select ohlcv.add_candle_partitions({range_})")
    assert market.execute("select count(*) from ohlcv.candle_partitions()").fetchone() == before


@pytest.mark.slow
def test_add_candle_partitions_of_fifty_years_fits_the_locks_of_one_transaction(market) -> None:
    added = "select ohlcv.add_candle_partitions('1950-01-01 00:00+00', '1999-12-31 23:00+00')"
    assert market.execute(added).fetchone() == (600,)


@pytest.mark.slow
def test_partitions_are_made_beside_a_feed_that_is_writing(market, database_url: str) -> None:
    with psycopg.connect(database_url) as feed:
        ingest(feed, [candle("A", "1m", DAY)])
        market.execute("set lock_timeout = '1s'")
        added = market.execute("select ohlcv.add_candle_partitions(%s, %s)", [DAY, DAY + timedelta(days=40)]).fetchone()
        assert added == (1,)
        assert market.execute("select ohlcv.drop_candle_partitions('2030-01-01')").fetchone() == ([],), "it gives up"


def partitions(market: psycopg.Connection) -> dict[str, int]:
    return dict(
        market.execute(
            "select relname, pg_class.oid::int from pg_class join pg_inherits on inhrelid = pg_class.oid "
            "where inhparent = 'ohlcv.candles'::regclass and relname ~ '[0-9]{6}$'"
        ).fetchall()
    )


@pytest.mark.slow
@pytest.mark.parametrize("days", [1, 5, 10, 31])
def test_short_retention_drops_a_month_once_and_does_not_make_it_again(market, days: int, database_url: str) -> None:
    moment = DAY + timedelta(days=30)  # the beginning of the second week of April
    tick(market, run_of(moment, candle_retention_days=days))
    before = partitions(market)
    assert min(before) == ("candles_202603" if days > 6 else "candles_202604")
    with psycopg.connect(database_url) as reader:
        # No partition can be dropped now, so one that is made is seen.
        reader.execute("lock table only ohlcv.candles in access share mode")
        tick(market, run_of(moment + 5 * MINUTE, candle_retention_days=days))
    assert partitions(market) == before


@pytest.mark.slow
def test_cleared_run_of_long_ago_makes_no_months_that_the_retention_has_dropped(market) -> None:
    tick(market, run_of(DAY + timedelta(days=100), candle_retention_days=40))
    before = partitions(market)
    tick(market, run_of(DAY, candle_retention_days=40))
    assert partitions(market) == before


@pytest.mark.slow
@pytest.mark.parametrize(("environment", "dropped"), [("PROD", True), ("TEST", False)])
def test_asset_that_is_active_in_tests_only_keeps_no_candles_in_production(
    market, environment: str, dropped: bool
) -> None:
    register(market, {"A": "5m"}, active=False, test_active=True)
    ingest(market, candles("A", "5m", DAY, DAY + HOUR))
    run = run_of(DAY + timedelta(days=100), candle_retention_days=31, env_name=environment)
    with market.transaction(), market.cursor() as cursor:
        prepare_partitions(cursor, run)
    assert ("candles_202603" not in partitions(market)) is dropped


def test_run_log_keeps_its_newest_rows(market) -> None:
    for number in range(5):
        market.execute("select ops.ops_runlog_start('job', 'PROD', %s)", [f"run {number}"])
        market.execute("select ops.ops_runlog_checkpoint('job', %s, 'half', '{\"bars\": 3}')", [f"run {number}"])
        if number != 1:
            market.execute("select ops.ops_runlog_finish('job', %s, 'success', '{\"bars\": 7}')", [f"run {number}"])
    assert market.execute("select ops.ops_runlog_prune('job', 2)").fetchone() == (2,)
    rows = market.execute(
        "select run_id, checkpoints -> 0 ->> 'bars', totals ->> 'bars' from ops.ops_runlog order by id"
    )
    assert rows.fetchall() == [("run 1", "3", None), ("run 3", "3", "7"), ("run 4", "3", "7")]


def test_run_log_closes_rows_of_runs_that_never_finished(market) -> None:
    for run_id in ("lost", "waiting", "running"):
        market.execute("select ops.ops_runlog_start('job', 'PROD', %s)", [run_id])
    market.execute("update ops.ops_runlog set started_at = now() - interval '2 days'")
    for run_id, age in (("lost", "25 hours"), ("waiting", "23 hours")):
        market.execute("select ops.ops_runlog_checkpoint('job', %s, 'planned')", [run_id])
        at = "update ops.ops_runlog set checkpoints = jsonb_set(checkpoints, '{0,at}', to_jsonb(now() - %s::interval))"
        market.execute(f"{at} where run_id = %s", [age, run_id])
    market.execute("update ops.ops_runlog set started_at = now() where run_id = 'running'")

    market.execute("select ops.ops_runlog_prune('job', 5)")

    rows = market.execute("select run_id, status, finished_at is not null, error from ops.ops_runlog order by id")
    error = "The run did not reach its last task: it was deleted, or its state was set by hand."
    assert rows.fetchall() == [
        ("lost", "failed", True, error),
        ("waiting", "running", False, None),
        ("running", "running", False, None),
    ]
    assert market.execute("select ops.ops_runlog_prune('job', 0)").fetchone() == (1,), "closed rows are pruned"


@pytest.mark.slow
def test_upgrade_renames_the_constraint_of_partitions_that_exist(market) -> None:
    names = market.execute("select distinct conname from pg_constraint where conname like '%step%'").fetchall()
    tables = "select count(*) from pg_constraint where conname = %s and conrelid::regclass::text like 'ohlcv.candles%%'"
    assert names == [(ALIGNED,)]
    assert market.execute(tables, [ALIGNED]).fetchone() == (3,)


@pytest.mark.slow
def test_asset_with_tasks_is_not_renamed_and_the_way_that_the_error_names_moves_its_bars(market) -> None:
    register(market, {"OLD": "5m", "TYPO": "5m"})
    market.execute("update ohlcv.assets set symbol = 'RIGHT' where symbol = 'TYPO'")
    ingest(market, candles("OLD", "5m", DAY, DAY + 2 * HOUR))
    tick(market, run_of(DAY + 2 * HOUR + MINUTE))
    before = stored(market)
    with pytest.raises(psycopg.Error, match=r"'OLD' is not renamed to 'NEW'.* Nothing was changed\. Insert the asset"):
        market.execute("update ohlcv.assets set symbol = 'NEW' where symbol = 'OLD'")
    register(market, {"NEW": "5m"})
    market.execute("update ohlcv.candles set symbol = 'NEW' where symbol = 'OLD'")
    moment = DAY + 2 * HOUR + 6 * MINUTE
    tick(market, run_of(moment))
    market.execute("delete from ohlcv.assets where symbol = 'OLD'")
    assert stored(market) == expected(market, moment)
    assert {("OLD", *key[1:]): bar for key, bar in stored(market).items()} == before


def unprocessed(market: psycopg.Connection, environment: str = "PROD") -> list[tuple[str, str, str]]:
    rows = market.execute("select symbol, timeframe, reason from ohlcv.unprocessed_candles(%s)", [environment])
    return sorted((symbol, timeframe, reason.split(".")[0]) for symbol, timeframe, reason in rows)


@pytest.mark.slow
def test_csv_file_with_columns_in_another_order_is_refused_by_the_command_of_the_docs(market, repository: Path) -> None:
    page = (repository / "docs" / "products" / "ohlcv.md").read_text()
    ((table, options),) = re.findall(r"^\\copy (ohlcv\.candles .*) from 'candles.csv' (.*)$", page, re.MULTILINE)

    def load(text: str) -> None:
        with market.cursor() as cursor, cursor.copy(f"copy {table} from stdin {options}") as copy:
            copy.write(text)

    with pytest.raises(psycopg.Error, match="column name mismatch"):
        load("symbol,timeframe,ts,high,open,low,close,volume,trades\nA,5m,2026-03-08T00:00Z,3,2,1,2.5,10,7\n")
    load("symbol,timeframe,ts,open,high,low,close,volume,trades\nA,5m,2026-03-08T00:00Z,2,3,1,2.5,10,7\n")
    assert market.execute("select open, high from ohlcv.candles").fetchall() == [(2, 3)]


class TestUnprocessedCandles:
    """The list of candles that no task will process."""

    @pytest.mark.slow
    def test_mistakes_of_feeds_are_listed_with_their_reasons_and_right_candles_are_not(self, market) -> None:
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
    def test_candles_from_before_a_change_of_the_base_timeframe_are_not_listed(self, market) -> None:
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
    def test_candles_dated_in_the_future_are_listed_and_are_not_the_newest_source(self, market) -> None:
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
    def test_empty_table_has_no_candles_to_list(self, market) -> None:
        assert unprocessed(market) == []


class TestFrontier:
    """What each task waits for."""

    @pytest.fixture(autouse=True)
    def bars(self, market) -> None:
        self.now = datetime.now(UTC)
        self.hour = self.now.replace(minute=0, second=0, microsecond=0)
        market.execute("select ohlcv.add_candle_partitions(%s, %s)", [self.hour - 31 * DAYS, self.hour + 31 * DAYS])
        register(market, {"A": "5m"})

    def waits(self, market) -> dict[str, str]:
        return dict(market.execute("select timeframe, waits_for from ohlcv.frontier").fetchall())

    def overdue(self, market) -> dict[str, timedelta | None]:
        return dict(market.execute("select timeframe, overdue from ohlcv.frontier").fetchall())

    @pytest.mark.slow
    def test_symbol_whose_candles_have_ended_waits_for_candles(self, market) -> None:
        ingest(market, candles("A", "5m", self.hour - 30 * HOUR, self.hour - 28 * HOUR))
        tick(market, run_of(self.hour + MINUTE))
        assert self.waits(market) == {
            "15m": "candles of 5m",
            "1h": "bars of 15m",
            "4h": "bars of 1h",
            "1d": "bars of 4h",
        }
        assert set(self.overdue(market).values()) == {None}

    @pytest.mark.slow
    def test_windows_that_are_over_wait_for_a_run_or_for_the_finer_timeframe(self, market) -> None:
        market.execute("select ohlcv.sync_tasks()")
        assert set(self.waits(market).values()) == {"candles of 5m", "bars of 15m", "bars of 1h", "bars of 4h"}
        ingest(market, candles("A", "5m", self.hour - 30 * HOUR, self.hour - 28 * HOUR))
        assert self.waits(market)["15m"] == "a run"
        tick(market, run_of(self.hour - 29 * HOUR + MINUTE))
        market.execute("update ohlcv.tasks set cursor = %s where timeframe = '1h'", [self.hour - 30 * HOUR])
        assert (self.waits(market)["15m"], self.waits(market)["1h"]) == ("a run", "a run")
        overdue = self.overdue(market)["15m"]
        assert overdue >= self.now - (self.hour - 29 * HOUR + 15 * MINUTE + timedelta(seconds=30))
        market.execute(
            "update ohlcv.tasks set status = 'disabled', built_until = %s where timeframe = '15m'",
            [self.hour - 30 * HOUR],
        )
        assert (self.waits(market)["15m"], self.waits(market)["1h"]) == ("a reset", "bars of 15m")

    @pytest.mark.slow
    def test_window_that_is_not_over_waits_for_its_end(self, market) -> None:
        ingest(market, [candle("A", "5m", self.hour - 5 * MINUTE)])
        market.execute("select ohlcv.sync_tasks()")
        market.execute("update ohlcv.tasks set cursor = %s", [self.hour - 15 * MINUTE])
        market.execute("update ohlcv.tasks set size = '7 days' where timeframe = '15m'")
        assert (self.waits(market)["15m"], self.overdue(market)["15m"]) == ("the end of its window", None)

    @pytest.mark.slow
    def test_lag_is_unknown_without_a_cursor_or_a_candle(self, market) -> None:
        market.execute("select ohlcv.sync_tasks()")
        assert market.execute("select distinct lag from ohlcv.frontier").fetchall() == [(None,)]
        ingest(market, [candle("A", "5m", self.hour - 5 * MINUTE)])
        assert market.execute("select distinct lag from ohlcv.frontier").fetchall() == [(None,)]


class TestMarkChanged:
    """Candles written without any trigger: as by a subscriber of a logical replication."""

    @pytest.fixture(autouse=True)
    def bars(self, market) -> None:
        register(market, {"A": "5m", "B": "5m"})
        for symbol in "AB":
            ingest(market, candles(symbol, "5m", DAY, DAY + 4 * HOUR))
        tick(market, run_of(DAY + 4 * HOUR + MINUTE))
        for table in ("ohlcv.candles", "ohlcv.candles_202603"):
            market.execute(f"alter table {table} disable trigger user")

    def changed(self, market) -> None:
        market.execute("update ohlcv.candles set high = 999 where symbol = 'A' and ts = %s", [DAY + 65 * MINUTE])
        market.execute(
            "delete from ohlcv.candles where symbol = 'A' and ts >= %s and ts < %s", [DAY + 2 * HOUR, DAY + 3 * HOUR]
        )
        ingest(market, [candle("B", "5m", DAY + 5 * MINUTE, 77)])

    RANGE: ClassVar = ["--start", "2026-03-08T00:07", "--end", "2026-03-08T03:00+00:00"]

    @pytest.mark.slow
    def test_bars_of_changed_and_deleted_candles_follow(self, market, capsys) -> None:
        self.changed(market)
        before = stored(market)
        tick(market, run_of(DAY + 4 * HOUR + 6 * MINUTE))
        assert stored(market) == before, "nothing was logged"
        assert main(["mark-changed", *self.RANGE]) == 0
        assert capsys.readouterr().out == "Symbols marked: 2. The next run builds their bars of the range again.\n"
        tick(market, run_of(DAY + 4 * HOUR + 11 * MINUTE))
        assert stored(market) == expected(market, DAY + 4 * HOUR + 11 * MINUTE) != before

    @pytest.mark.slow
    def test_only_the_symbols_given_are_marked_and_others_are_named(self, market, capsys) -> None:
        self.changed(market)
        assert main(["mark-changed", *self.RANGE, "--symbol", "A", "b"]) == 0
        assert "they have no tasks or the range is before their start: 'b'\n" in capsys.readouterr().out
        assert market.execute("select distinct symbol from ohlcv.stale_windows").fetchall() == [("A",)]
        assert main(["mark-changed", *self.RANGE, "--symbol", "b"]) == 1

    @pytest.mark.slow
    def test_symbol_without_any_candle_in_the_range_keeps_its_bars(self, market, capsys) -> None:
        market.execute("delete from ohlcv.candles where symbol = 'A'")
        before = stored(market)
        assert main(["mark-changed", "--start", "2020-01-01", "--end", "2030-01-01"]) == 0
        assert "No candles in the range, so that their bars stay: 'A'\n" in capsys.readouterr().out
        tick(market, run_of(DAY + 4 * HOUR + 6 * MINUTE))
        assert stored(market) == before

    @pytest.mark.slow
    def test_change_that_a_running_task_has_not_read_is_built_by_the_next_run(self, market, database_url: str) -> None:
        ingest(market, candles("A", "5m", DAY + 4 * HOUR, DAY + 5 * HOUR))
        run = run_of(DAY + 5 * HOUR + MINUTE)
        with market.transaction(), market.cursor() as cursor:
            (shard,) = plan(cursor, run)
        with psycopg.connect(database_url) as other:
            with other.cursor() as cursor:
                aggregate(lambda: nullcontext(cursor), run, **shard)
            market.execute("update ohlcv.candles set high = 999 where symbol = 'A' and ts >= %s", [DAY + 4 * HOUR])
            assert main(["mark-changed", "--start", "2026-03-08T04:00", "--end", "2026-03-08T05:00"]) == 0
        tick(market, run_of(DAY + 5 * HOUR + 6 * MINUTE))
        assert stored(market) == expected(market, DAY + 5 * HOUR + 6 * MINUTE)

    @pytest.mark.parametrize("end", ["2026-03-08T00:07", "2026-03-01"])
    def test_range_that_ends_before_it_starts_is_refused(self, market, capsys, end: str) -> None:
        assert main(["mark-changed", "--start", "2026-03-08T00:07", "--end", end]) == 1
        assert "is not before --end" in capsys.readouterr().err
        assert market.execute("select from ohlcv.stale_windows").fetchall() == []


class TestCommand:
    @pytest.fixture(autouse=True)
    def disabled(self, market) -> None:
        register(market, {"[red]A[/]": "1m", "B": "1m"})
        market.execute("select ohlcv.sync_tasks()")
        market.execute("update ohlcv.tasks set status = 'disabled', hard_fails = 3, last_error = 'x' where size < '2h'")

    @pytest.mark.slow
    def test_reset_makes_tasks_idle_again(self, market, capsys) -> None:
        assert main(["reset", "--symbol", "B", "--timeframe", "15m"]) == 0
        assert capsys.readouterr().out == "B 15m: was disabled, idle again\n"
        assert main(["reset"]) == 0
        assert main(["reset"]) == 1
        assert set(tasks(market, "status, hard_fails")) == {("idle", 0)}

    @pytest.mark.slow
    def test_frontier_shows_what_needs_somebody_first(self, capsys) -> None:
        assert main(["frontier", "--timeframe", "4h", "15m"]) == 0
        said = capsys.readouterr().out
        *table, first, second = said.splitlines()
        lines = [line for line in table if "4h" in line or "15m" in line]
        assert "disabled" in lines[0]
        assert any("[red]A[/]" in line for line in lines)
        assert sorted([first, second]) == ["B 15m: x", "[red]A[/] 15m: x"]

    @pytest.mark.slow
    def test_frontier_says_what_is_healthy_and_lists_candles_that_no_task_will_process(self, market, capsys) -> None:
        for number in range(22):
            ingest(market, [candle(f"s{number:02}", "1m", DAY + number * MINUTE)])
        ingest(market, [candle("b", "1m", DAY)])
        assert main(["frontier", "--symbol", "B", "b"]) == 0
        said = capsys.readouterr().out
        assert HEALTHY_TASKS in said
        assert said.endswith(
            "Candles that no task will process:\n'b' 1m, 2026-03-08 00:00 to 2026-03-08 00:00 UTC: The symbol is not "
            "registered; 'B' differs in case or blanks only. Correct the feed, then update ohlcv.candles set symbol = "
            "'B' where symbol = 'b'.\n"
        )
        assert main(["frontier"]) == 0
        assert "and 3 more: see ohlcv.unprocessed_candles('DEV')\n" in capsys.readouterr().out

    @pytest.mark.slow
    def test_frontier_says_how_many_tasks_it_leaves_out(self, market, capsys) -> None:
        assert main(["frontier"]) == 0
        assert "more tasks" not in capsys.readouterr().out
        register(market, {f"S{number:03}": "5m" for number in range(300)})
        market.execute("select ohlcv.sync_tasks()")
        ((tasks,),) = market.execute("select count(*) from ohlcv.tasks").fetchall()
        assert main(["frontier"]) == 0
        assert f"and {tasks - 50:,} more tasks: choose some with --symbol" in capsys.readouterr().out

    @pytest.mark.slow
    def test_frontier_shows_whole_moments_in_a_narrow_terminal(self, market, monkeypatch, capsys) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        market.execute("update ohlcv.tasks set cursor = '2026-11-15 12:15+00'")
        assert main(["frontier"]) == 0
        assert capsys.readouterr().out.count("2026-11-15 12:15") >= 8

    @pytest.mark.slow
    def test_database_that_is_down_is_one_line(self, monkeypatch, capsys) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_MARKET_DB", "postgresql://u@127.0.0.1:1/market?connect_timeout=2")
        assert main(["frontier"]) == 1
        assert "cannot be reached by connection market_db" in capsys.readouterr().err


EXPLAIN = {
    "log_min_duration": 0,
    "log_level": "notice",
    "log_analyze": "on",
    "log_timing": "off",
    "log_format": "json",
    "log_nested_statements": "on",
}

FILL = """
insert into ohlcv.candles
select symbol, '5m', ts, 10 + n %% 7, 20 + n %% 11, 5 - n %% 3, 11 + n %% 5, 1.5 + n %% 13, n %% 4
from unnest(%(symbols)s::text[]) as symbol,
    generate_series(%(start)s::timestamptz, %(end)s::timestamptz - interval '1 second', '5 minutes')
        with ordinality as t (ts, n)
"""


@pytest.mark.slow
def test_ten_thousand_symbols_in_one_tick(market) -> None:
    symbols = [f"S{number:05}" for number in range(10_000)]
    market.execute("insert into ohlcv.assets (symbol, base_timeframe) select unnest(%s::text[]), '5m'", [symbols])
    market.execute(FILL, {"symbols": symbols, "start": DAY, "end": DAY + HOUR})
    ingest(market, [candle("S07777", "5m", DAY + 30 * MINUTE, high=float("nan"))])
    done = tick(market, run_of(DAY + HOUR + MINUTE))
    assert (done["inserted"], done["failed"]) == (5 * 10_000 - 3, 1)
    assert tasks(market, "symbol, timeframe", "last_error is not null") == [("S07777", "15m")]
    assert market.execute("select count(*) from ops.ops_runlog_tasks").fetchone() == (19_999,)


@pytest.mark.slow
def test_ten_years_of_backlog_are_done_in_bounded_steps(market) -> None:
    start, end = datetime(2016, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
    market.execute("select ohlcv.add_candle_partitions(%s, %s)", [start, end])
    register(market, {"A": "5m"})
    market.execute(FILL.replace("'5 minutes'", "'60 minutes'"), {"symbols": ["A"], "start": start, "end": end})
    as_of, steps = end + MINUTE, 0
    while tick(market, run_of(as_of + steps * 5 * MINUTE, max_windows_per_task=80_000))["inserted"]:
        steps += 1
    assert steps == 5
    assert stored(market) == expected(market, as_of)


@pytest.mark.slow
def test_rebuild_over_changed_windows_builds_each_once_and_empties_those_alone(market) -> None:
    register(market, {"A": "5m"})
    ingest(market, candles("A", "5m", DAY, DAY + 2 * HOUR))
    tick(market, run_of(DAY + 2 * HOUR + MINUTE))
    changed, unknown = DAY + HOUR, DAY + HOUR + 30 * MINUTE
    ingest(market, [candle("A", "5m", DAY + 30 * MINUTE, 99)])
    for window in (changed, unknown):
        market.execute("delete from ohlcv.candles where ts >= %s and ts < %s", [window, window + 15 * MINUTE])
    market.execute("select ohlcv.drain_candle_changes()")
    market.execute("delete from ohlcv.stale_windows where window_start = %s", [unknown])
    mark = "select ohlcv.mark_stale('{A}', '15m', %s, %s)"
    assert market.execute(mark, [DAY + 10 * MINUTE, DAY + 24 * HOUR]).fetchone() == (1,)
    assert market.execute(mark, [DAY + 2 * HOUR, DAY + 24 * HOUR]).fetchone() == (0,), "nothing there was built"
    market.execute("select ohlcv.agg_start('A', '15m', 'me')")
    counts = "r.unchanged, r.updated, r.deleted"
    build = f"select {counts} from ohlcv.catchup_aggregation_range('A', '15m', 'me', null) as r"
    assert market.execute(build).fetchall() == [(4, 1, 1)], "from the first window that starts in the range"
    bars = {ts for _, frame, ts in stored(market) if frame == "15m"}
    assert bars == {DAY + number * 15 * MINUTE for number in range(8)} - {changed}


@pytest.mark.slow
def test_rebuild_that_meets_candles_that_make_no_bar_leaves_the_rest_of_its_windows_marked(market) -> None:
    register(market, {"A": "5m"})
    ingest(market, candles("A", "5m", DAY, DAY + 2 * HOUR))
    tick(market, run_of(DAY + 2 * HOUR + MINUTE))
    market.execute("update ohlcv.candles set low = 'NaN' where ts = %s", [DAY + 70 * MINUTE])
    market.execute("select ohlcv.mark_stale('{A}', '15m', %s, %s)", [DAY, DAY + 24 * HOUR])
    market.execute("select ohlcv.agg_start('A', '15m', 'me')")
    build = "select r.unchanged, r.outcome from ohlcv.catchup_aggregation_range('A', '15m', 'me', null) as r"
    assert market.execute(build).fetchall() == [(4, "hard")]
    left = "select window_start, ends_at, empties from ohlcv.stale_windows"
    assert market.execute(left).fetchall() == [(DAY + HOUR, DAY + 2 * HOUR, False)]


@pytest.mark.slow
def test_stale_windows_of_a_task_are_built_no_more_at_once_than_the_limit(market) -> None:
    register(market, {"A": "5m"})
    ingest(market, candles("A", "5m", DAY, DAY + HOUR))
    tick(market, run_of(DAY + HOUR + MINUTE))
    ingest(market, [candle("A", "5m", DAY + number * 15 * MINUTE, 99) for number in range(4)])
    builds = [
        tick(market, run_of(DAY + HOUR + minutes * MINUTE, max_windows_per_task=3))["updated"]
        for minutes in (6, 11, 12)
    ]
    assert builds == [3 + 1, 1 + 1, 0], "windows of 15m, and the hour"
    assert stored(market) == expected(market, DAY + HOUR + 12 * MINUTE)


@pytest.mark.slow
def test_limit_counts_the_windows_of_stale_ranges_and_none_of_them_twice(market) -> None:
    register(market, {"A": "5m"})
    ingest(market, candles("A", "5m", DAY, DAY + 24 * HOUR))
    as_of = DAY + 24 * HOUR + MINUTE
    tick(market, run_of(as_of))
    mark = "select ohlcv.mark_stale('{A}', '15m', %s, %s)"
    market.execute("update ohlcv.bars set high = 0 where timeframe = '15m'")
    market.execute(mark, [DAY, DAY + 12 * HOUR])
    market.execute(mark, [DAY + HOUR, DAY + 2 * HOUR])
    market.execute(mark, [DAY + 23 * HOUR, DAY + 24 * HOUR])
    built, left = [], []
    for number in range(1, 6):
        tick(market, run_of(as_of + number * 5 * MINUTE, max_windows_per_task=20))
        right = market.execute("select count(*) from ohlcv.bars where timeframe = '15m' and high > 0").fetchone()
        built.append(right[0])
        ranges = "select window_start, ends_at from ohlcv.stale_windows where timeframe = '15m' order by 1"
        left.append(market.execute(ranges).fetchall())
    assert built == [20, 40, 48 + 4, 48 + 4, 48 + 4]
    assert left[:3] == [
        [(DAY + 5 * HOUR, DAY + 12 * HOUR), (DAY + 23 * HOUR, DAY + 24 * HOUR)],
        [(DAY + 10 * HOUR, DAY + 12 * HOUR), (DAY + 23 * HOUR, DAY + 24 * HOUR)],
        [],
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("first", "last"), [("-infinity", "infinity"), ("0001-01-01", "9999-12-31")])
def test_rebuild_of_all_times_marks_what_there_is(market, first: str, last: str) -> None:
    register(market, {"A": "5m"})
    ingest(market, candles("A", "5m", DAY + 4 * HOUR, DAY + 24 * HOUR))
    tick(market, run_of(DAY + 24 * HOUR + MINUTE))
    for timeframe in TIMEFRAMES:
        market.execute("select ohlcv.mark_stale(null, %s, %s, %s)", [timeframe, first, last])
    ranges = "select distinct window_start, ends_at from ohlcv.stale_windows where timeframe <> '1d'"
    assert market.execute(ranges).fetchall() == [(DAY + 4 * HOUR, DAY + 24 * HOUR)]
    assert tick(market, run_of(DAY + 24 * HOUR + 6 * MINUTE))["unchanged"] == 80 + 20 + 5 + 1


@pytest.mark.slow
def test_replay_writes_no_wal(market) -> None:
    symbols = [f"S{number}" for number in range(100)]
    market.execute("insert into ohlcv.assets (symbol, base_timeframe) select unnest(%s::text[]), '5m'", [symbols])
    market.execute(FILL, {"symbols": symbols, "start": DAY, "end": DAY + 24 * HOUR})
    tick(market, run_of(DAY + 24 * HOUR + MINUTE))
    before = versions(market)
    range_ = "row(symbol, '5m', %s, %s, false, interval '5 minutes', null, null, false, null)::ohlcv.source_range"
    ranges = f"array(select {range_} from ohlcv.assets)"
    build = f"select sum(unchanged) from ohlcv.build_bars('15m', {ranges}, 1)"
    with market.transaction():
        # The first reader of rows that are new may note so on their pages.
        market.execute(build, [DAY, DAY + 24 * HOUR])
        written = "select pg_current_wal_insert_lsn() - '0/0'"
        ((start,),) = market.execute(written).fetchall()
        assert market.execute(build, [DAY, DAY + 24 * HOUR]).fetchone() == (9600,)
        ((end,),) = market.execute(written).fetchall()
    assert end - start < 5_000, "nothing, but for what the server does by itself"
    assert versions(market) == before


def handled(market: psycopg.Connection, call: Callable[[psycopg.Connection], object]) -> int:
    """Rows that the plans of a call's statements have handed on or thrown away: what it works, whatever the machine."""

    def rows(plan: dict[str, Any]) -> float:
        thrown_away = sum(count for name, count in plan.items() if name.startswith("Rows Removed"))
        each = plan["Actual Rows"] + thrown_away
        return each * plan["Actual Loops"] + sum(map(rows, plan.get("Plans", [])))

    plans: list[dict[str, Any]] = []

    def keep(notice: psycopg.errors.Diagnostic) -> None:
        _, _, plan = (notice.message_primary or "").partition("plan:\n")
        if plan:
            plans.append(json.loads(plan)["Plan"])

    with psycopg.connect(market.info.dsn, autocommit=True) as explained:
        explained.add_notice_handler(keep)
        explained.execute("load 'auto_explain'")
        for name, value in EXPLAIN.items():
            explained.execute(f"set auto_explain.{name} = {value}")
        call(explained)
    return round(sum(map(rows, plans)))


@pytest.mark.slow
def test_tick_works_as_much_as_there_is_to_do(market) -> None:
    """Also where statistics are older than the first bars of a timeframe, and one shard after the other stores some."""
    symbols = [f"S{number:04}" for number in range(2_000)]
    market.execute("insert into ohlcv.assets (symbol, base_timeframe) select unnest(%s::text[]), '5m'", [symbols])
    end = DAY + 24 * HOUR
    market.execute(FILL.replace("'5 minutes'", "'4 hours'"), {"symbols": symbols, "start": DAY, "end": end})
    tick(market, run_of(end - 14 * MINUTE))
    market.execute("vacuum analyze")
    work = {}
    for what, as_of in {"all timeframes close": end + MINUTE, "late candles": end + 6 * MINUTE}.items():
        run = run_of(as_of, ohlcv_symbols_per_shard=250)
        work[what] = handled(market, lambda explained, run=run: tick(explained, run)) // len(symbols)
        market.execute("update ohlcv.candles set close = close + 1 where ts = %s", [DAY + 8 * HOUR])
    # Some hundred rows a symbol. Each symbol of a shard compared with the bars of those before it are many thousands.
    assert {what: rows for what, rows in work.items() if rows > 1_500} == {}


@pytest.mark.slow
def test_tick_does_not_handle_more_rows_when_the_history_grows(market) -> None:
    market.execute("select ohlcv.add_candle_partitions(%s, %s)", [DAY, DAY + timedelta(days=40)])
    symbols = [f"S{number}" for number in range(20)]
    market.execute("insert into ohlcv.assets (symbol, base_timeframe) select unnest(%s::text[]), '5m'", [symbols])
    handled_rows = []
    begin = DAY
    for days in (2, 25):
        end = begin + timedelta(days=days)
        market.execute(FILL, {"symbols": symbols, "start": begin, "end": end})
        tick(market, run_of(end + MINUTE))
        market.execute("vacuum analyze")
        market.execute(FILL, {"symbols": symbols, "start": end, "end": end + 15 * MINUTE})
        handled_rows.append(handled(market, lambda explained, end=end: tick(explained, run_of(end + 16 * MINUTE))))
        begin = end + 15 * MINUTE
    few, many = handled_rows
    # The history grows twelvefold. ANALYZE samples at random, so the plan, and with it the count, varies by a third.
    assert many < 2 * few
