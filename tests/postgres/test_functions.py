"""The functions of all databases do not depend on the settings of the calling session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from aggregator.postgres.migrations import databases
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
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


PINNED = {"search_path": '""', "datestyle": "ISO, MDY", "timezone": "UTC"}

INLINED = {
    "ohlcv.align",
    "ohlcv.watermark_horizon",
    "ohlcv.watermark_cursor",
    "ohlcv.watermark_built_until",
}
"""Functions without settings, so that PostgreSQL inlines them. They handle no text, and no interval of a day or more.

Their bodies are parsed when they are created, so the search path of the caller has no influence.
"""

SETTINGS = """
select
    pronamespace::regnamespace || '.' || proname,
    coalesce((
        select jsonb_object_agg(lower(split_part(setting, '=', 1)), substr(setting, strpos(setting, '=') + 1))
        from unnest(proconfig) as setting
    ), '{}')
from pg_proc
where pronamespace::regnamespace::text !~ '^(pg_|information_schema)'
order by 1
"""

HOSTILE = {
    "SQL, DMY in Kolkata": {"datestyle": "SQL, DMY", "timezone": "Asia/Kolkata"},
    "German in New York": {"datestyle": "German, DMY", "timezone": "America/New_York", "intervalstyle": "iso_8601"},
    "Postgres, MDY in Chatham": {"datestyle": "Postgres, MDY", "timezone": "Pacific/Chatham"},
    "planner switches": {
        "enable_hashagg": "off",
        "enable_hashjoin": "off",
        "enable_indexscan": "off",
        "enable_partition_pruning": "off",
        "plan_cache_mode": "force_generic_plan",
        "jit_above_cost": "0",
        "jit": "on",
    },
}


@pytest.fixture
def functions(migrated: Callable[..., psycopg.Connection]) -> dict[str, dict[str, str]]:
    """The settings of each function in every database."""
    return dict(migrated(*databases()).execute(SETTINGS).fetchall())


def test_every_function_pins_search_path_datestyle_and_timezone(functions: dict[str, dict[str, str]]) -> None:
    assert {"ohlcv.build_bars", "ops.ops_runlog_start", "kpi.claim_kpi"} <= functions.keys()
    assert {name for name, settings in functions.items() if not settings.items() >= PINNED.items()} == INLINED


def test_inlined_functions_have_a_parsed_body_and_no_settings(
    functions: dict[str, dict[str, str]], connection: psycopg.Connection
) -> None:
    parsed = """
        select pronamespace::regnamespace || '.' || proname from pg_proc
        where prosqlbody is not null and pronamespace::regnamespace::text !~ '^(pg_|information_schema)'
    """
    assert {name for (name,) in connection.execute(parsed)} == INLINED
    assert [functions[name] for name in INLINED] == [{}] * len(INLINED)


def test_functions_with_a_planner_setting_turn_jit_off(functions: dict[str, dict[str, str]]) -> None:
    """A disabled plan type adds a penalty to plans without an alternative, and their costs reach ``jit_above_cost``."""
    switched = {
        name: settings
        for name, settings in functions.items()
        if any(setting.startswith(("enable_", "plan_cache_mode")) for setting in settings)
    }
    assert {"ohlcv.claim_tasks", "ohlcv.finish_tasks", "ohlcv.agg_get_due_tasks"} <= switched.keys()
    assert {name for name, settings in switched.items() if settings.get("jit") != "off"} == set()


@pytest.fixture(params=list(HOSTILE.values()), ids=list(HOSTILE))
def hostile(
    request: pytest.FixtureRequest, migrated: Callable[..., psycopg.Connection], database_url: str
) -> Iterator[psycopg.Connection]:
    """An autocommit connection to the market database with unusual session settings."""
    migrated("market")
    with psycopg.connect(database_url, autocommit=True) as connection:
        for name, value in request.param.items():
            connection.execute("select set_config(%s, %s, false)", [name, value])
        yield connection


@pytest.mark.slow
def test_session_with_other_settings_builds_the_same_bars_and_partitions(
    hostile: psycopg.Connection, connection: psycopg.Connection
) -> None:
    connection.execute("set timezone to 'UTC'")
    hostile.execute("select ohlcv.add_candle_partitions(%s, %s)", [DAY - 24 * HOUR, DAY + 60 * 24 * HOUR])
    bounds = "select pg_get_expr(relpartbound, oid) from pg_class where relname = 'candles_202605'"
    assert connection.execute(bounds).fetchone() == (
        "FOR VALUES FROM ('2026-05-01 00:00:00+00') TO ('2026-06-01 00:00:00+00')",
    )
    symbols = {"A": "1m", "B": "5m"}
    register(connection, symbols)
    for symbol, base in symbols.items():
        ingest(hostile, candles(symbol, base, DAY, DAY + 24 * HOUR))
    as_of = DAY + 24 * HOUR + MINUTE
    tick(hostile, run_of(as_of))
    assert stored(connection) == expected(connection, as_of)
    ingest(
        hostile, [candle("A", "1m", DAY + 3 * HOUR, 99.0), candle("B", "5m", DAY + 3 * HOUR, 10.0, low=float("nan"))]
    )
    tick(hostile, run_of(as_of + 5 * MINUTE))
    right = expected(connection, as_of, but="B")
    assert {key: bar for key, bar in stored(connection).items() if key[0] == "A"} == right
    errors = tasks(connection, "last_error", "symbol = 'B' and timeframe = '15m'")
    assert "2026-03-08 03:00 UTC" in errors[0][0]
    connection.execute("update ohlcv.bars set high = 0 where symbol = 'A' and timeframe = '15m'")
    hostile.execute("select ohlcv.mark_stale('{A}', '15m', %s, %s)", [DAY, DAY + 24 * HOUR])
    tick(hostile, run_of(as_of + 10 * MINUTE))
    assert {key: bar for key, bar in stored(connection).items() if key[0] == "A"} == right
