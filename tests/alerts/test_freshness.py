"""Freshness: a table is stale if source data waits longer than the deadline of its run, and in no other case."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from aggregator.alerts import freshness
from aggregator.alerts.freshness import TARGETS, Freshness, Lag, State, check
from aggregator.core.catalog import CATALOG
from aggregator.postgres.migrations import databases

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
NOW = datetime.now(UTC)
TODAY = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
ORGANIZATION = "'00000000-0000-0000-0000-000000000001'::uuid"
WRITES_NOTHING = {"analytics_warmup_reset"}


@pytest.fixture
def products(migrated: Callable[..., psycopg.Connection]) -> psycopg.Connection:
    """One database for all products. Its time zone is not UTC."""
    connection = migrated(*databases())
    connection.execute(f"alter database {connection.info.dbname} set timezone to 'Asia/Kolkata'")
    connection.execute("set timezone to 'UTC'")
    return connection


def states(now: datetime = NOW) -> dict[str, str]:
    return {one.target.dag_id: one.state.value for one in check(now) if one.target.due}


def test_every_table_that_a_dag_writes_is_a_target() -> None:
    assert sorted(target.dag_id for target in TARGETS if target.due) == sorted(CATALOG.keys() - WRITES_NOTHING)
    assert len({target.table for target in TARGETS}) == len(TARGETS)


def test_empty_tables_are_not_stale(products: psycopg.Connection) -> None:
    found = check()
    assert {one.state for one in found if one.state is not State.UNUSED} == {State.EMPTY}


@pytest.fixture
def no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in databases():
        monkeypatch.delenv(f"AIRFLOW_CONN_{name.upper()}_DB", raising=False)


@pytest.mark.usefixtures("no_connections", "metadata_database")
def test_table_without_connection_is_unused_and_without_response_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CLICKS_DB", "postgresql://u:word@127.0.0.1:1/x?connect_timeout=2")
    found = states()
    assert found.pop("click_rollups") == "unknown"
    assert set(found.values()) == {"unused"}


@pytest.mark.usefixtures("no_connections", "metadata_database")
def test_table_whose_server_does_not_respond_is_unknown_after_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness, "TIME_LIMIT", timedelta(seconds=1))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/x?connect_timeout=600"
        monkeypatch.setenv("AIRFLOW_CONN_CLICKS_DB", url)
        assert states()["click_rollups"] == "unknown"


@pytest.mark.usefixtures("no_connections", "no_metadata_database")
def test_every_table_is_unknown_while_the_secrets_backend_is_down(caplog: pytest.LogCaptureFixture) -> None:
    assert set(states().values()) == {"unknown"}
    assert "MetastoreBackend failed (OperationalError)" in caplog.text
    assert "secret-word" not in caplog.text


def test_paused_suite_is_not_stale(products: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENABLE_ANALYTICS_CRON", "false")
    found = states()
    assert {state for dag_id, state in found.items() if dag_id.startswith("analytics")} == {"paused"}
    assert found["click_rollups"] == "empty"


def test_clicks_are_stale_when_a_day_is_missing_at_the_deadline(products: psycopg.Connection) -> None:
    products.execute("insert into hires (id) values ('h')")
    products.execute(
        "insert into click_rollups (day, hire_id, valid_clicks, invalid_clicks) values (%s, 'h', 1, 0)", [TODAY]
    )
    tomorrow = TODAY + DAY
    assert states(tomorrow + DAY + 2 * HOUR)["click_rollups"] == "fresh"
    assert states(tomorrow + DAY + 2 * HOUR + timedelta(seconds=1))["click_rollups"] == "stale"


ACTIVITY = "insert into analytics.contact_activity (organization_id, event_type, event_source, created_at) values "
CAMPAIGN = "'00000000-0000-0000-0000-0000000000aa'"


@pytest.mark.parametrize(
    ("dag_id", "stored", "source", "limit"),
    [
        (
            "telemetry_daily",
            "insert into telemetry_daily (date, event, count, unique_users) values ('{stored:%F}', 'a', 1, 1)",
            "insert into telemetry (event, created_at) values ('a', '{event:%F %T}Z'), ('a', '{stored:%F %T}Z')",
            27 * HOUR,
        ),
        (
            "analytics_hourly_aggregation",
            f"insert into analytics.event_aggregates values ({ORGANIZATION}, '{{stored:%F}}', 'a', null, 1, 1)",
            f"{ACTIVITY} ({ORGANIZATION}, 'a', null, '{{event:%F %T}}')",
            timedelta(minutes=75) + 9 * HOUR,
        ),
        (
            "analytics_daily_reports",
            (
                "insert into analytics.campaign_daily_stats (campaign_id, organization_id, date) "
                f"values ({CAMPAIGN}, {ORGANIZATION}, '{{stored:%F}}')"
            ),
            (
                f"{ACTIVITY} ({ORGANIZATION}, 'email_sent', {CAMPAIGN}, '{{event:%F %T}}'), "
                f"({ORGANIZATION}, 'email_sent', 'a form', '{{before:%F %T}}')"
            ),
            27 * HOUR,
        ),
        (
            "analytics_enrichment_metrics",
            f"insert into analytics.enrichment_metrics values ({ORGANIZATION}, '{{stored:%F}}', 1, 1, 1, 1)",
            (
                "insert into lead_intelligence.enrichment_jobs (organization_id, status, created_at) "
                f"values ({ORGANIZATION}, 'failed', '{{event:%F %T}}')"
            ),
            30 * HOUR,
        ),
    ],
)
def test_day_without_events_is_fresh_and_waiting_events_are_stale(
    products: psycopg.Connection, dag_id: str, stored: str, source: str, limit: timedelta
) -> None:
    day = TODAY - DAY
    moments = {"stored": day - 3 * DAY, "before": day + 8 * HOUR, "event": day + 9 * HOUR}
    products.execute(stored.format(**moments))
    assert states(NOW + 30 * DAY)[dag_id] == "fresh", "nothing waits"

    products.execute(source.format(**moments))
    assert states(day + limit)[dag_id] == "fresh"
    assert states(day + limit + timedelta(seconds=1))[dag_id] == "stale"


def test_monthly_usage_is_stale_when_a_month_with_events_is_missing(products: psycopg.Connection) -> None:
    products.execute(
        "insert into analytics.event_aggregates "
        f"values ({ORGANIZATION}, '2026-01-01', 'monthly:a', 'monthly_summary', 1, 1)"
    )
    assert states()["analytics_monthly_usage"] == "fresh"
    products.execute(f"{ACTIVITY} ({ORGANIZATION}, 'a', null, '2026-03-15')")
    limit = datetime(2026, 3, 1, tzinfo=UTC) + 31 * DAY + 5 * HOUR
    assert states(limit)["analytics_monthly_usage"] == "fresh"
    assert states(limit + timedelta(seconds=1))["analytics_monthly_usage"] == "stale"


def test_scores_are_stale_when_a_snapshot_is_missing(products: psycopg.Connection) -> None:
    products.execute(
        f"insert into analytics.daily_score_distribution values ({ORGANIZATION}, '{TODAY:%F}', 1, 1, 1, 1, 1, 1, 1)"
    )
    late = TODAY + DAY + 5 * HOUR + timedelta(seconds=1)
    assert states(late)["analytics_score_distribution"] == "fresh", "there are no scores"
    products.execute(f"insert into scoring.lead_scores values ({ORGANIZATION}, {ORGANIZATION}, 1)")
    assert states(late - timedelta(seconds=1))["analytics_score_distribution"] == "fresh"
    assert states(late)["analytics_score_distribution"] == "stale"


def test_setting_of_the_deadline_moves_the_limit(products: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGGREGATOR_DEADLINES", '{"click_rollups": "PT3H"}')
    products.execute("insert into hires (id) values ('h')")
    products.execute(
        "insert into click_rollups (day, hire_id, valid_clicks, invalid_clicks) values (%s, 'h', 1, 0)", [TODAY]
    )
    assert states(TODAY + 2 * DAY + 4 * HOUR)["click_rollups"] == "fresh"
    assert states(TODAY + 2 * DAY + 4 * HOUR + timedelta(seconds=1))["click_rollups"] == "stale"


def test_job_records_are_stale_when_a_day_has_none(products: psycopg.Connection) -> None:
    products.execute(
        "insert into kpi.jobs (trace_id, dag_id, run_id, environment, created_at) "
        "values ('trace_20261115_120000_abcdefgh', 'kpi_dispatch', 'r', 'test', %s)",
        [TODAY],
    )
    assert states(TODAY + DAY + timedelta(minutes=45))["kpi_dispatch"] == "fresh"
    assert states(TODAY + DAY + timedelta(minutes=45, seconds=1))["kpi_dispatch"] == "stale"


NEVER = ["infinity", "-infinity", "57841-01-01", "0044-03-15 BC", f"{NOW + 20 * DAY:%F}"]
"""Impossible dates of data: not finite, in the future, or outside the years of Python."""

STORED = {
    "click_rollups": "insert into click_rollups (day, hire_id, valid_clicks, invalid_clicks) values ('{}', 'h', 1, 0)",
    "telemetry_daily": "insert into telemetry_daily (date, event, count, unique_users) values ('{}', 'a', 1, 1)",
    "analytics_hourly_aggregation": (
        f"insert into analytics.event_aggregates values ({ORGANIZATION}, '{{}}', 'a', null, 1, 1)"
    ),
    "analytics_daily_reports": (
        "insert into analytics.campaign_daily_stats (campaign_id, organization_id, date) "
        f"values ({CAMPAIGN}, {ORGANIZATION}, '{{}}')"
    ),
    "analytics_monthly_usage": (
        f"insert into analytics.event_aggregates values ({ORGANIZATION}, '{{}}', 'monthly:a', 'monthly_summary', 1, 1)"
    ),
    "analytics_score_distribution": (
        f"insert into analytics.daily_score_distribution values ({ORGANIZATION}, '{{}}', 1, 1, 1, 1, 1, 1, 1)"
    ),
    "analytics_enrichment_metrics": (
        f"insert into analytics.enrichment_metrics values ({ORGANIZATION}, '{{}}', 1, 1, 1, 1)"
    ),
    "kpi_dispatch": (
        "insert into kpi.jobs (trace_id, dag_id, run_id, environment, created_at) "
        "values ('trace_20261115_120000_' || left(md5('{0}'), 8), 'kpi_dispatch', '{0}', 'test', '{0}')"
    ),
}
SOURCES = (
    "insert into telemetry (event, created_at) values ('a', '{}')",
    f"{ACTIVITY} ({ORGANIZATION}, 'email_sent', {CAMPAIGN}, '{{}}')",
    (
        "insert into lead_intelligence.enrichment_jobs (organization_id, status, created_at) "
        f"values ({ORGANIZATION}, 'failed', '{{}}')"
    ),
)


def test_impossible_dates_neither_hide_stale_data_nor_make_it_unknown(products: psycopg.Connection) -> None:
    products.execute("insert into hires (id) values ('h')")
    products.execute(f"insert into scoring.lead_scores values ({ORGANIZATION}, {ORGANIZATION}, 1)")
    for date in [f"{(NOW - 90 * DAY).replace(day=1):%F}", *NEVER]:
        for stored in STORED.values():
            products.execute(stored.format(date))
    for date in [f"{NOW - 45 * DAY:%F %T}", f"{NOW - 2 * DAY:%F %T}", *NEVER]:
        for source in SOURCES:
            products.execute(source.format(date))
    found = {one.target.dag_id: one for one in check() if one.target.dag_id in STORED}
    assert {dag_id: one.state.value for dag_id, one in found.items()} == dict.fromkeys(STORED, "stale")
    assert all(one.newest and one.newest <= NOW for one in found.values())


def test_every_query_is_tested_with_impossible_dates() -> None:
    assert STORED.keys() | {"ohlcv_aggregation"} == {target.dag_id for target in TARGETS}


def test_rows_of_the_current_day_do_not_hide_a_missing_day(
    products: psycopg.Connection,
) -> None:
    products.execute("insert into hires (id) values ('h')")
    for dag_id in ("click_rollups", "telemetry_daily", "analytics_daily_reports", "analytics_enrichment_metrics"):
        for date in (TODAY - 9 * DAY, TODAY):
            products.execute(STORED[dag_id].format(f"{date:%F}"))
    for source in SOURCES:
        products.execute(source.format(f"{TODAY - 2 * DAY:%F %T}"))
    late = TODAY + timedelta(hours=23)
    found = {dag_id: states(late)[dag_id] for dag_id in ("click_rollups", "telemetry_daily")}
    assert set(found.values()) == {"stale"}


@pytest.fixture
def market(products: psycopg.Connection) -> psycopg.Connection:
    """Twenty symbols whose bars and candles end at the start of the day."""
    products.execute("select ohlcv.add_candle_partitions(%s, %s)", [TODAY - 40 * DAY, TODAY + 40 * DAY])
    products.execute(
        "insert into ohlcv.assets (symbol, base_timeframe) "
        "select 'S' || to_char(n, 'FM00'), '1m' from generate_series(1, 20) as n"
    )
    products.execute("select ohlcv.sync_tasks()")
    products.execute("update ohlcv.tasks set cursor = %(now)s, built_until = %(now)s", {"now": TODAY})
    candle(products, TODAY - timedelta(minutes=1))
    return products


def candle(market: psycopg.Connection, ts: datetime, *symbols: str, timeframe: str = "1m") -> None:
    """Insert a candle of some symbols, or of all."""
    market.execute(
        "insert into ohlcv.candles select symbol, %s, %s, 1, 1, 1, 1, 1, 1 from ohlcv.assets "
        "where %s::text[] is null or symbol = any(%s::text[])",
        [timeframe, ts, list(symbols) or None, list(symbols) or None],
    )


def of(table: str, now: datetime) -> Freshness:
    return next(one for one in check(now) if one.target.table == table)


@pytest.mark.parametrize("ahead", [timedelta(minutes=30), 20 * DAY], ids=str)
def test_candle_dated_in_the_future_does_not_hide_a_dead_feed(market: psycopg.Connection, ahead: timedelta) -> None:
    now = TODAY + 5 * DAY
    candle(market, now + ahead, "S01")
    market.execute("update ohlcv.tasks set cursor = %s where symbol = 'S01' and size < '1h'", [now + ahead])
    found = of("ohlcv.candles", now)
    assert (found.state, found.newest, found.lag) == (
        State.STALE,
        TODAY - timedelta(minutes=1),
        Lag(20, 20, ("S01", "S02", "S03")),
    )
    assert of("ohlcv.bars", now).newest == TODAY


def test_feed_is_stale_when_too_many_symbols_are_silent(
    market: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = TODAY + 4 * DAY
    candle(market, alive, *(f"S{number:02}" for number in range(3, 21)))
    found = of("ohlcv.candles", alive)
    assert (found.state, found.waiting_since) == (State.STALE, TODAY - timedelta(minutes=1))
    assert str(found.lag) == "2 of 20 symbols are behind: S01, S02."
    candle(market, alive, "S02")
    assert of("ohlcv.candles", alive).state is State.FRESH, "one of 20 may be silent"
    monkeypatch.setenv("OHLCV_MAX_BEHIND_PERCENT", "4")
    assert of("ohlcv.candles", alive).state is State.STALE


def test_one_fresh_symbol_does_not_hide_symbols_behind(market: psycopg.Connection) -> None:
    candle(market, TODAY + timedelta(minutes=3))
    now = TODAY + timedelta(minutes=20, seconds=1)
    market.execute("update ohlcv.tasks set cursor = %s where symbol = 'S01'", [TODAY + timedelta(minutes=15)])
    found = of("ohlcv.bars", now)
    assert (found.state, found.newest, found.waiting_since) == (State.STALE, TODAY + timedelta(minutes=15), TODAY)
    assert str(found.lag) == "19 of 20 symbols are behind: S02 15m, S03 15m, S04 15m, and 16 more."
    market.execute(
        "update ohlcv.tasks set cursor = %s where symbol <> 'S20' and timeframe = '15m'",
        [TODAY + timedelta(minutes=15)],
    )
    found = of("ohlcv.bars", now)
    assert (found.state, found.lag) == (State.FRESH, Lag(1, 20, ("S20 15m",)))


def test_task_that_never_ran_is_behind(market: psycopg.Connection) -> None:
    market.execute("update ohlcv.tasks set cursor = null, built_until = null where timeframe = '1h'")
    market.execute(
        "insert into ohlcv.bars (symbol, timeframe, ts, open, high, low, close, volume, price_volume, candles, "
        "expected_candles, derivation_version) select symbol, '15m', %s, 1, 1, 1, 1, 1, 1, 1, 15, 1 from ohlcv.assets",
        [TODAY - timedelta(hours=1)],
    )
    assert of("ohlcv.bars", TODAY + timedelta(minutes=5)).state is State.FRESH
    found = of("ohlcv.bars", TODAY + timedelta(minutes=5, seconds=1))
    assert (found.state, found.lag) == (State.STALE, Lag(20, 20, ("S01 1h", "S02 1h", "S03 1h")))
    market.execute("update ohlcv.tasks set built_until = %s where timeframe = '15m'", [TODAY - timedelta(minutes=15)])
    found = of("ohlcv.bars", TODAY + timedelta(minutes=5, seconds=1))
    assert found.state is State.FRESH, "the bar of 1h waits for its bars of 15m"


@pytest.mark.parametrize(
    "change",
    [
        "update ohlcv.tasks set status = 'disabled'",
        "update ohlcv.tasks set hard_fails = 1",
        "update ohlcv.tasks set enabled = false",
        "update ohlcv.assets set active = false",
        "update ohlcv.tasks set status = 'running', owner = 'run', claimed_at = '{now}'",
    ],
)
def test_task_that_no_run_can_process_is_not_behind(market: psycopg.Connection, change: str) -> None:
    now = TODAY + HOUR
    candle(market, TODAY - timedelta(minutes=3))
    market.execute("update ohlcv.tasks set cursor = %s", [TODAY - HOUR])
    assert of("ohlcv.bars", now).state is State.STALE
    market.execute(change.format(now=now))
    assert of("ohlcv.bars", now).state in {State.FRESH, State.EMPTY}


def test_asset_active_only_in_tests_is_not_behind_in_production(
    market: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    candle(market, TODAY + timedelta(minutes=3))
    market.execute("update ohlcv.assets set active = false, test_active = true")
    now = TODAY + timedelta(minutes=21)
    assert of("ohlcv.bars", now).state is State.STALE
    monkeypatch.setenv("ENV_NAME", "PROD")
    assert of("ohlcv.bars", now).lag is None
    assert of("ohlcv.candles", now + 9 * DAY).state is State.EMPTY


def test_market_that_opens_is_fresh_until_its_first_window_is_late(market: psycopg.Connection) -> None:
    opens = TODAY + 2 * DAY
    candle(market, opens)
    assert of("ohlcv.bars", opens + timedelta(minutes=20)).state is State.FRESH
    assert of("ohlcv.bars", opens + timedelta(minutes=20, seconds=1)).state is State.STALE


@pytest.fixture(params=[True, False], ids=["synchronized", "before the next run"])
def changed_market(market: psycopg.Connection, request: pytest.FixtureRequest) -> psycopg.Connection:
    """A market after a change of its base timeframe. It also has old candles of the new base timeframe."""
    candle(market, TODAY - 20 * DAY, timeframe="5m")
    market.execute("update ohlcv.assets set base_timeframe = '5m'")
    if request.param:
        market.execute("select ohlcv.sync_tasks()")
    return market


def test_candles_are_fresh_after_base_timeframe_change_until_the_feed_is_silent(
    changed_market: psycopg.Connection,
) -> None:
    found = of("ohlcv.candles", TODAY + HOUR)
    assert (found.state, found.newest) == (State.FRESH, TODAY - timedelta(minutes=1))
    assert of("ohlcv.candles", TODAY + 4 * DAY).state is State.STALE


def test_candles_are_stale_when_no_candle_of_the_new_base_timeframe_arrives(changed_market: psycopg.Connection) -> None:
    changed_market.execute("delete from ohlcv.candles where timeframe = '5m'")
    found = of("ohlcv.candles", TODAY + 4 * DAY)
    assert (found.state, found.lag) == (State.STALE, Lag(20, 20, ("S01", "S02", "S03")))


def test_bars_are_stale_when_candles_of_the_former_base_timeframe_wait(changed_market: psycopg.Connection) -> None:
    changed_market.execute("update ohlcv.tasks set cursor = %s", [TODAY - timedelta(minutes=15)])
    assert of("ohlcv.bars", TODAY + timedelta(minutes=5)).state is State.FRESH
    found = of("ohlcv.bars", TODAY + timedelta(minutes=5, seconds=1))
    assert (found.state, found.waiting_since) == (State.STALE, TODAY - timedelta(minutes=15))
    assert found.lag == Lag(20, 20, ("S01 15m", "S02 15m", "S03 15m"))


@pytest.mark.parametrize(("hours", "limit"), [("", 4 * DAY), ("1", HOUR)])
def test_candles_are_stale_after_the_configured_age(
    products: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, hours: str, limit: timedelta
) -> None:
    monkeypatch.setenv("CANDLE_MAX_AGE_HOURS", hours)

    def state(now: datetime) -> str:
        return next(one.state.value for one in check(now) if one.target.table == "ohlcv.candles")

    products.execute("insert into ohlcv.assets (symbol, base_timeframe) values ('A', '1m'), ('DEAD', '1m')")
    products.execute("select ohlcv.sync_tasks()")
    assert state(TODAY + 100 * DAY) == "empty"

    products.execute("select ohlcv.add_candle_partitions(%s, %s)", [TODAY - 9 * DAY, TODAY])
    candle = "insert into ohlcv.candles values (%s, '1m', %s, 1, 1, 1, 1, 1, 1)"
    products.execute(candle, ["DEAD", TODAY - 9 * DAY])
    products.execute(candle, ["A", TODAY])
    assert state(TODAY + limit) == "stale", "one of two symbols is silent"
    products.execute("delete from ohlcv.candles where symbol = 'DEAD'")
    assert state(TODAY + limit) == "fresh", "a symbol that never had a candle does not count"
    assert state(TODAY + limit + timedelta(seconds=1)) == "stale"


def test_bars_are_stale_when_candles_wait_after_the_cursor(products: psycopg.Connection) -> None:
    products.execute("insert into ohlcv.assets (symbol, base_timeframe) values ('A', '1m'), ('NEW', '1m')")
    products.execute(
        "insert into ohlcv.tasks (symbol, timeframe, source_timeframe, size, mandatory, priority, cursor) values "
        "('A', '15m', '1m', '15 minutes', false, 1, %(now)s), ('NEW', '15m', '1m', '15 minutes', false, 1, null)",
        {"now": TODAY},
    )
    assert states(TODAY + DAY)["ohlcv_aggregation"] == "fresh", "no candle waits"

    month = TODAY.replace(day=1)
    products.execute(
        f"create table ohlcv.some partition of ohlcv.candles for values from ('{month}') to ('{TODAY + DAY}')"
    )
    products.execute(
        "insert into ohlcv.candles values ('A', '1m', %s, 1, 1, 1, 1, 1, 1)", [TODAY + timedelta(minutes=7)]
    )
    assert states(TODAY + timedelta(minutes=20))["ohlcv_aggregation"] == "fresh"
    assert states(TODAY + timedelta(minutes=20, seconds=1))["ohlcv_aggregation"] == "stale"
