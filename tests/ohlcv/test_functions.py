"""The functions of the market database: their definitions, and tasks run one at a time from psql."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aggregator.ohlcv.run import TIMEFRAMES
from tests.market_data import DAY, HOUR, MINUTE, candle, candles, ingest, register, run_of, stored, tasks, tick

if TYPE_CHECKING:
    import psycopg

OURS = "pronamespace in ('ohlcv'::regnamespace, 'ops'::regnamespace)"


def test_every_function_has_a_comment_no_public_grant_and_a_pinned_search_path(market: psycopg.Connection) -> None:
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
    # A body that is parsed when the function is created does not use the search path of its caller.
    careless = f"""
        select proname from pg_proc
        where {OURS} and (
            obj_description(oid, 'pg_proc') is null
            or not (coalesce(proconfig, '{{}}') @> array['search_path=""'] or prosqlbody is not null)
            or has_function_privilege('public', oid, 'execute')
        )
    """
    assert market.execute(careless).fetchall() == []


@pytest.mark.slow
def test_one_task_at_a_time_gives_the_same_bars_and_state_as_one_run(market: psycopg.Connection) -> None:
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
