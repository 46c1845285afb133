"""Work per tick and per replay, counted in rows and WAL bytes instead of seconds."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.market_data import (
    DAY,
    HOUR,
    MINUTE,
    candle,
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
    from aggregator.ohlcv.run import Run


FILL = """
insert into ohlcv.candles
select symbol, '5m', ts, 10 + n %% 7, 20 + n %% 11, 5 - n %% 3, 11 + n %% 5, 1.5 + n %% 13, n %% 4
from unnest(%(symbols)s::text[]) as symbol,
    generate_series(%(start)s::timestamptz, %(end)s::timestamptz - interval '1 second', '5 minutes')
        with ordinality as t (ts, n)
"""


EXPLAIN = {
    "log_min_duration": 0,
    "log_level": "notice",
    "log_analyze": "on",
    "log_timing": "off",
    "log_format": "json",
    "log_nested_statements": "on",
}


def rows_processed(market: psycopg.Connection, run: Run) -> int:
    """Count the rows that all plan nodes of a tick return or filter out: its work, independent of the machine."""

    def rows(plan: dict[str, Any]) -> float:
        filtered = sum(count for name, count in plan.items() if name.startswith("Rows Removed"))
        own: float = (plan["Actual Rows"] + filtered) * plan["Actual Loops"]
        return own + sum(map(rows, plan.get("Plans", [])))

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
        tick(explained, run)
    return round(sum(map(rows, plans)))


@pytest.mark.slow
def test_statistics_with_all_tasks_running_do_not_plan_a_nested_loop(market: psycopg.Connection) -> None:
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
def test_tick_of_ten_thousand_symbols_builds_all_but_the_invalid_one(market: psycopg.Connection) -> None:
    symbols = [f"S{number:05}" for number in range(10_000)]
    market.execute("insert into ohlcv.assets (symbol, base_timeframe) select unnest(%s::text[]), '5m'", [symbols])
    market.execute(FILL, {"symbols": symbols, "start": DAY, "end": DAY + HOUR})
    ingest(market, [candle("S07777", "5m", DAY + 30 * MINUTE, high=float("nan"))])
    done = tick(market, run_of(DAY + HOUR + MINUTE))
    assert (done["inserted"], done["failed"]) == (5 * 10_000 - 3, 1)
    assert tasks(market, "symbol, timeframe", "last_error is not null") == [("S07777", "15m")]
    assert market.execute("select count(*) from ops.ops_runlog_tasks").fetchone() == (19_999,)


@pytest.mark.slow
def test_backlog_of_ten_years_is_built_in_bounded_steps(market: psycopg.Connection) -> None:
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
def test_replay_writes_no_wal(market: psycopg.Connection) -> None:
    symbols = [f"S{number}" for number in range(100)]
    market.execute("insert into ohlcv.assets (symbol, base_timeframe) select unnest(%s::text[]), '5m'", [symbols])
    market.execute(FILL, {"symbols": symbols, "start": DAY, "end": DAY + 24 * HOUR})
    tick(market, run_of(DAY + 24 * HOUR + MINUTE))
    before = versions(market)
    range_ = "row(symbol, '5m', %s, %s, false, interval '5 minutes', null, null, false, null)::ohlcv.source_range"
    ranges = f"array(select {range_} from ohlcv.assets)"
    build = f"select sum(unchanged) from ohlcv.build_bars('15m', {ranges}, 1)"
    with market.transaction():
        # The first read of new rows may set hint bits, which writes WAL.
        market.execute(build, [DAY, DAY + 24 * HOUR])
        written = "select pg_current_wal_insert_lsn() - '0/0'"
        ((start,),) = market.execute(written).fetchall()
        assert market.execute(build, [DAY, DAY + 24 * HOUR]).fetchone() == (9600,)
        ((end,),) = market.execute(written).fetchall()
    assert end - start < 5_000, "only the background writes of the server"
    assert versions(market) == before


@pytest.mark.slow
def test_tick_with_old_statistics_reads_few_rows_per_symbol(market: psycopg.Connection) -> None:
    """The statistics are older than the first bars of a timeframe, and each shard stores some before the next."""
    symbols = [f"S{number:04}" for number in range(2_000)]
    market.execute("insert into ohlcv.assets (symbol, base_timeframe) select unnest(%s::text[]), '5m'", [symbols])
    end = DAY + 24 * HOUR
    market.execute(FILL.replace("'5 minutes'", "'4 hours'"), {"symbols": symbols, "start": DAY, "end": end})
    tick(market, run_of(end - 14 * MINUTE))
    market.execute("vacuum analyze")
    rows_per_symbol = {}
    for what, as_of in {"all timeframes close": end + MINUTE, "late candles": end + 6 * MINUTE}.items():
        run = run_of(as_of, ohlcv_symbols_per_shard=250)
        rows_per_symbol[what] = rows_processed(market, run) // len(symbols)
        market.execute("update ohlcv.candles set close = close + 1 where ts = %s", [DAY + 8 * HOUR])
    # A good plan reads some hundred rows per symbol. A plan that compares each symbol with all bars reads thousands.
    assert {what: rows for what, rows in rows_per_symbol.items() if rows > 1_500} == {}


@pytest.mark.slow
def test_tick_with_a_longer_history_reads_no_more_rows(market: psycopg.Connection) -> None:
    market.execute("select ohlcv.add_candle_partitions(%s, %s)", [DAY, DAY + timedelta(days=40)])
    symbols = [f"S{number}" for number in range(20)]
    market.execute("insert into ohlcv.assets (symbol, base_timeframe) select unnest(%s::text[]), '5m'", [symbols])
    processed = []
    begin = DAY
    for days in (2, 25):
        end = begin + timedelta(days=days)
        market.execute(FILL, {"symbols": symbols, "start": begin, "end": end})
        tick(market, run_of(end + MINUTE))
        market.execute("vacuum analyze")
        market.execute(FILL, {"symbols": symbols, "start": end, "end": end + 15 * MINUTE})
        processed.append(rows_processed(market, run_of(end + 16 * MINUTE)))
        begin = end + 15 * MINUTE
    few, many = processed
    # The history grows twelvefold. ANALYZE samples at random, so the plan and the count vary by a third.
    assert many < 2 * few
