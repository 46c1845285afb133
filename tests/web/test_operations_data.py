"""The figures of the Operations API, compared with the rows that were stored."""

from __future__ import annotations

import json
import threading
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from aggregator.alerts import freshness
from aggregator.ohlcv.run import TIMEFRAMES
from aggregator.web.operations import database
from dev.sample.load import load_analytics, load_candles, load_history

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.web.conftest import Operations

    Migrated = Callable[..., psycopg.Connection]

pytestmark = pytest.mark.slow

NASTY = [
    "' or 1=1 --",
    "'; drop table public.hires; --",
    "%",
    "_",
    "\\",
    "$$",
    "%(x)s",
    "{0}",
    "<b>x</b>",
    "🦊",
    "\x01",
]
"""Texts that would change a statement or a pattern if they were part of it."""

BAR = """
insert into ohlcv.bars (
    symbol, timeframe, ts, open, high, low, close, volume, price_volume, trades, candles, expected_candles,
    derivation_version
) values (%s, %s, %s, 1, 3, 0.5, 2, 10, 165, 7, %s, %s, 1)
"""
MIDNIGHT = datetime(2026, 11, 10, tzinfo=UTC)


def market(migrated: Migrated, *symbols: str) -> psycopg.Connection:
    connection = migrated("market", "ops")
    for symbol in symbols or ("BTCUSD",):
        connection.execute("insert into ohlcv.assets (symbol, base_timeframe) values (%s, '5m')", [symbol])
    connection.execute("select ohlcv.sync_tasks()")
    return connection


def times(*quarters: int) -> list[datetime]:
    return [MIDNIGHT + quarter * timedelta(minutes=15) for quarter in quarters]


def test_bars_have_gaps_inside_the_first_and_last_bar_only(operations: Operations, migrated: Migrated) -> None:
    connection = market(migrated)
    stored = times(0, 1, 4, 5, 9)
    for ts in stored:
        connection.execute(BAR, ["BTCUSD", "15m", ts, 3, 3])
    for start, end in [(-10, 20), (0, 10), (2, 9), (5, 6), (3, 4), (-9, 1), (9, 30)]:
        first, last = times(start, end)
        found = operations.read(
            "/ohlcv/bars", symbol="BTCUSD", start=first.isoformat(), end=(last - timedelta(seconds=1)).isoformat()
        )
        inside = [ts for ts in stored if first <= ts < last]
        assert [bar["time"] for bar in found["bars"]] == [ts.timestamp() for ts in inside]
        missing = {ts for ts in times(*range(10)) if ts not in stored and first <= ts < last}
        covered = {
            datetime.fromtimestamp(each, UTC) for gap in found["gaps"] for each in range(gap["start"], gap["end"], 900)
        }
        assert covered == missing, (start, end)
        assert all(gap["windows"] * 900 == gap["end"] - gap["start"] for gap in found["gaps"])
        assert found["open"] is None
    (bar, *_) = found["bars"]
    assert bar == {
        "time": int(stored[-1].timestamp()),
        "open": 1.0,
        "high": 3.0,
        "low": 0.5,
        "close": 2.0,
        "volume": 10.0,
        "vwap": 5.5,
        "trades": 7,
        "quality": 2,
        "candles": 3,
        "expectedCandles": 3,
    }
    assert [found["first"], found["last"]] == ["2026-11-10T00:00:00Z", "2026-11-10T02:15:00Z"]


def test_open_bar_is_made_of_the_valid_candles_of_its_window(operations: Operations, migrated: Migrated) -> None:
    connection = market(migrated)
    (now,) = connection.execute("select now()").fetchone() or ()
    connection.execute("select ohlcv.add_candle_partitions(%s, %s)", [now - timedelta(days=2), now])
    start = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    insert = "insert into ohlcv.candles values ('BTCUSD', '5m', %s, %s, %s, %s, %s, 2, 1)"
    connection.execute(insert, [start - timedelta(minutes=5), 9, 9, 9, 9])
    connection.execute(insert, [start, 3, 5, 2, 4])
    expected = [3, 5, 2, 4, 1]
    if now - start > timedelta(minutes=11):
        connection.execute(insert, [start + timedelta(minutes=5), 4, 8, 1, 6])
        connection.execute(insert, [start + timedelta(minutes=10), 4, "NaN", 1, 6])
        expected = [3, 8, 1, 6, 2]
    found = operations.read("/ohlcv/bars", symbol="BTCUSD", timeframe="1d")["open"]
    if found and found["time"] == start.timestamp():  # else the day has changed
        assert [found[key] for key in ("open", "high", "low", "close", "candles")] == expected
        assert found["expectedCandles"] == 288


def test_coverage_tells_silence_gaps_and_unknown_days_apart(operations: Operations, migrated: Migrated) -> None:
    connection = market(migrated)
    for day, candles in ((1, 288), (3, 100)):
        connection.execute(BAR, ["BTCUSD", "1d", MIDNIGHT + timedelta(days=day), candles, 288])
    connection.execute(BAR, ["BTCUSD", "15m", MIDNIGHT + timedelta(days=1), 3, 3])
    for quarter in range(8):
        connection.execute(BAR, ["BTCUSD", "15m", MIDNIGHT + timedelta(days=4, minutes=15 * quarter), 2, 3])
    connection.execute(
        "update ohlcv.tasks set cursor = %(until)s, built_until = %(until)s where timeframe = '15m'",
        {"until": MIDNIGHT + timedelta(days=4, hours=6)},
    )
    found = operations.read("/ohlcv/coverage", **{"from": "2026-11-10", "to": "2026-11-16"})
    assert found["days"] == [f"2026-11-{day}" for day in range(10, 16)]
    (row,) = found["items"]
    assert row["seen"] == [None, 288, 0, 100, 16, None]
    assert row["expected"] == [288, 288, 288, 288, 72, 288]


def test_tasks_are_sorted_searched_and_counted(operations: Operations, migrated: Migrated) -> None:
    symbols = [f"S{number:02}" for number in range(30)]
    connection = market(migrated, *symbols)
    ages = {symbol: number * 7 % 30 + 1 for number, symbol in enumerate(symbols)}
    for symbol, age in ages.items():
        connection.execute(
            "update ohlcv.tasks set cursor = now() - %s * interval '1 hour', hard_fails = %s where symbol = %s",
            [age, age % 3, symbol],
        )
    connection.execute("update ohlcv.tasks set status = 'disabled', last_error = 'x' where symbol = 'S05'")
    connection.execute("update ohlcv.tasks set last_error = '<b>bad</b>' where symbol = 'S09'")

    def names(**params: Any) -> list[str]:
        items: list[dict[str, Any]] = []
        for offset in range(0, 120, 50):
            found = operations.read("/ohlcv/tasks", limit=50, offset=offset, **params)
            items += found["items"]
        assert len(items) == found["total"]
        return [f"{item['symbol']} {item['timeframe']}" for item in items]

    every = [f"{symbol} {timeframe}" for symbol in symbols for timeframe in TIMEFRAMES]
    assert names(sort="symbol") == every
    assert sorted(names(sort="symbol", order="desc")) == sorted(every)
    assert names(sort="symbol", order="desc")[0] == "S29 15m"
    oldest = sorted(symbols, key=lambda symbol: -ages[symbol])
    assert names(sort="age", timeframe="1h") == [f"{symbol} 1h" for symbol in oldest]
    assert names(sort="age", order="asc", timeframe="1h") == [f"{symbol} 1h" for symbol in reversed(oldest)]
    attention = names(timeframe="15m")
    assert attention[:2] == ["S05 15m", "S09 15m"]
    assert attention[2:] == [f"{symbol} 15m" for symbol in oldest if symbol not in {"S05", "S09"}]
    assert names(search="s0", timeframe="4h", sort="symbol") == [f"S0{number} 4h" for number in range(10)]
    assert names(status="disabled", sort="symbol") == [f"S05 {timeframe}" for timeframe in TIMEFRAMES]
    found = operations.read("/ohlcv/tasks", search="S05", sort="streak", offset=500)
    assert (found["total"], found["items"]) == (4, [])
    assert found["statuses"] == {"idle": 0, "running": 0, "disabled": 4, "hard_failed": 0}


def test_runs_show_what_was_planned_and_written(operations: Operations, migrated: Migrated) -> None:
    connection = market(migrated)
    connection.execute("select * from ops.ops_runlog_start('agg-master', 'DEV', 'run 1', %s)", [MIDNIGHT])
    for claimed in (1, 8):
        connection.execute(
            "select ops.ops_runlog_checkpoint('agg-master', 'run 1', 'planned', %s)",
            [Jsonb({"due": 9, "claimed": claimed, "symbols": 3})],
        )
    totals = {"bars": 5, "poor_bars": 1, "inserted": 4, "updated": 1, "unchanged": 0, "deleted": 0, "failed": 1}
    connection.execute("select ops.ops_runlog_finish('agg-master', 'run 1', 'failed', %s, 'why')", [Jsonb(totals)])
    connection.execute("select * from ops.ops_runlog_start('agg-master', 'DEV', 'run 2', %s)", [MIDNIGHT])
    running, failed = operations.read("/ohlcv/runs")["items"]
    assert (running["runId"], running["status"], running["due"], running["seconds"]) == ("run 2", "running", None, None)
    named = {"due": 9, "claimed": 8, "symbols": 3, "inserted": 4, "failed": 1, "error": "why", "status": "failed"}
    assert {key: failed[key] for key in named} == named
    tab = operations.read("/dags/ohlcv_aggregation/run", run_id="run 1")
    assert tab["error"] == "why"
    (wrote,) = tab["wrote"]
    figures = {figure["label"]: figure["value"] for figure in wrote["figures"]}
    assert (wrote["table"], figures["New bars"], figures["Corrected bars"]) == ("ohlcv.bars", 4, 1)


def test_clicks_telemetry_and_their_tabs_equal_the_rows(operations: Operations, migrated: Migrated) -> None:
    connection = migrated("clicks", "telemetry", "ops")
    days = [date(2026, 10, 31) + timedelta(days=number) for number in range(5)]
    clicks = {
        (day, hire): (number * 3, number) for number, (day, hire) in enumerate((d, h) for d in days[::2] for h in "ab%")
    }
    for hire in "ab%":
        connection.execute("insert into public.hires values (%s)", [hire])
    for (day, hire), counts in clicks.items():
        connection.execute("insert into public.click_rollups values (%s, %s, %s, %s)", [day, hire, *counts])
        connection.execute("insert into public.telemetry_daily values (%s, %s, %s, %s)", [day, hire, *counts])
    params = {"from": "2026-10-31", "to": "2026-11-04"}
    seen = [day for day in days if day < date(2026, 11, 4)]

    def total(day: date, index: int) -> int | None:
        counts = [value[index] for key, value in clicks.items() if key[0] == day]
        return sum(counts) if counts else None

    found = operations.read("/clicks/days", **params)
    assert found["days"] == [day.isoformat() for day in seen]
    assert found["valid"] == [total(day, 0) for day in seen]
    assert found["invalid"] == [total(day, 1) for day in seen]
    assert found["hires"] == [3, None, 3, None]
    hires = operations.read("/clicks/hires", **params)
    by_hire = {
        hire: sum(value[0] for key, value in clicks.items() if key[1] == hire and key[0] in seen) for hire in "ab%"
    }
    assert {item["hireId"]: item["valid"] for item in hires["items"]} == by_hire
    assert [item["valid"] for item in hires["items"]] == sorted(by_hire.values(), reverse=True)
    assert (hires["total"], hires["valid"]) == (3, sum(by_hire.values()))
    only = operations.read("/clicks/hires", search="%", **params)
    assert [item["hireId"] for item in only["items"]] == ["%"]

    events = operations.read("/telemetry/days", **params)
    assert events["counts"] == found["valid"]
    assert {series["event"]: series["users"][0] for series in events["series"]} == {"a": 0, "b": 1, "%": 2}
    assert (events["total"], operations.read("/telemetry/events", **params)["total"]) == (3, 3)

    window = {"start": "2026-11-02T00:00:00Z", "end": "2026-11-03T00:00:00Z"}
    (wrote,) = operations.read("/dags/click_rollups/run", run_id="x", **window)["wrote"]
    assert {figure["label"]: figure["value"] for figure in wrote["figures"]} == {
        "Hires": 3,
        "Valid clicks": total(date(2026, 11, 2), 0),
        "Invalid clicks": total(date(2026, 11, 2), 1),
    }
    assert operations.read("/dags/click_rollups/run", run_id="x")["wrote"] == []


def test_analytics_of_one_and_of_all_organizations(operations: Operations, migrated: Migrated) -> None:
    connection = migrated("analytics", "ops")
    first, second = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"
    for organization, contacts, average in ((first, 10, 20), (second, 30, 60)):
        connection.execute(
            "insert into analytics.daily_score_distribution values (%s, '2026-11-02', %s, 1, %s, 5, 6, 7, %s)",
            [organization, average, average * 2, contacts],
        )
        connection.execute(
            "insert into analytics.enrichment_metrics values (%s, '2026-11-02', %s, %s, 'NaN', 0.5)",
            [organization, contacts, average],
        )
        connection.execute(
            """
            insert into analytics.campaign_daily_stats (campaign_id, organization_id, date, sent, delivered)
            values (%s, %s, '2026-11-02', %s, 1)
            """,
            [organization, organization, contacts],
        )
        connection.execute(
            """
            insert into analytics.event_aggregates values
            (%(id)s, '2026-11-01', 'a', null, 5, 2), (%(id)s, '2026-11-01', 'monthly:a', 'monthly_summary', 50, 20)
            """,
            {"id": organization},
        )
    params = {"from": "2026-11-01", "to": "2026-11-04"}
    scores = operations.read("/analytics/scores", **params)
    assert (scores["avg"], scores["max"]) == ([None, 50.0, None], [None, 120, None])
    assert operations.read("/analytics/scores", organization_id=first, **params)["avg"][1] == 20
    enrichment = operations.read("/analytics/enrichment", **params)
    assert (enrichment["enriched"][1], enrichment["successRate"][1], enrichment["avgCost"][1]) == (40, 40.0, None)
    campaigns = operations.read("/analytics/campaigns", limit=1, **params)
    assert (campaigns["total"], campaigns["funnel"]["sent"], campaigns["items"][0]["sent"]) == (2, 40, 30)
    events = operations.read("/analytics/events", **params)
    assert events["series"] == [{"eventType": "a", "count": [10, None, None], "unique": [4, None, None]}]
    assert operations.read("/analytics/organizations")["total"] == 2


def jobs(connection: psycopg.Connection) -> None:
    for day, hour in ((1, 12), (1, 18), (3, 12)):
        trace = f"trace_2026110{day}_{hour}0000_abcdefgh"
        created = datetime(2026, 11, day, hour, tzinfo=UTC)
        connection.execute(
            "insert into kpi.jobs values (%s, 'kpi_dispatch', %s, 'production', %s, %s)",
            [trace, f"run {day} {hour}", created, created],
        )
        for number in range(60):
            connection.execute(
                """
                insert into kpi.job_kpis (trace_id, kpi_id, name, type, report_back, metadata)
                values (%s, %s, %s, 'x', true, '{}')
                """,
                [trace, f"kpi-{number:02}", f"Name {number} of {day}"],
            )
        connection.execute("update kpi.job_kpis set status = 'sending', sent_at = now() where trace_id = %s", [trace])
        connection.execute(
            "update kpi.job_kpis set status = 'completed' where trace_id = %s and kpi_id > 'kpi-00'", [trace]
        )
        connection.execute(
            """
            update kpi.job_kpis set status = 'failed', error = '<b>x</b>', retry_count = 3
            where trace_id = %s and kpi_id = 'kpi-00'
            """,
            [trace],
        )


def test_kpi_grid_shows_the_newest_job_of_each_day(operations: Operations, migrated: Migrated) -> None:
    jobs(migrated("kpi", "ops"))
    params = {"from": "2026-11-01", "to": "2026-11-04"}
    grid = operations.read("/kpi/grid", **params)
    assert grid["jobs"] == ["trace_20261101_180000_abcdefgh", None, "trace_20261103_120000_abcdefgh"]
    failed = {"status": "failed", "error": "<b>x</b>", "retryCount": 3}
    assert grid["items"][0]["cells"] == [failed, None, failed]
    assert (grid["items"][0]["name"], grid["total"], len(grid["items"])) == ("Name 0 of 3", 60, 50)
    assert operations.read("/kpi/grid", search="KPI-5", **params)["total"] == 10
    found = operations.read("/kpi/jobs", **params)
    assert [
        (job["createdAt"], job["status"], job["kpis"], job["completed"], job["failed"]) for job in found["items"]
    ] == [(f"2026-11-0{day}T{hour}:00:00Z", "partial", 60, 59, 1) for day, hour in ((3, 12), (1, 18), (1, 12))]
    job = operations.read(f"/kpi/jobs/{grid['jobs'][0]}")
    assert (job["total"], job["items"][0]["kpiId"], job["items"][0]["requests"]) == (60, "kpi-00", 4)
    assert (job["items"][1]["status"], job["items"][1]["reported"]) == ("completed", True)
    tab = operations.read("/dags/kpi_dispatch/run", run_id="run 3 12")
    assert tab["traceId"] == "trace_20261103_120000_abcdefgh"


def test_registry_shows_reasons_and_never_the_path_of_a_webhook(
    operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    kpi = {"name": "A", "type": "x", "active": True, "webhookUrl": "https://n8n.example.com/webhook/secret-path"}
    broken = {**kpi, "id": "bad", "webhookUrl": "https://user:secret-path@example.com/secret-path"}
    entries = [{**kpi, "id": "good"}, broken, {**kpi, "id": "off", "active": False}]
    monkeypatch.setenv("AIRFLOW_VAR_KPI-REGISTRY", json.dumps({"kpis": entries}))
    response = operations.get("/kpi/registry")
    assert "secret-path" not in response.text
    found = response.json()
    assert (found["total"], found["sent"], found["dropped"], found["problem"]) == (2, 1, 1, None)
    dropped, sent = found["items"]
    assert (dropped["id"], dropped["state"], dropped["reason"][:10]) == ("bad", "dropped", "webhookUrl")
    assert (sent["id"], sent["state"], sent["host"]) == ("good", "sent", "n8n.example.com")
    assert operations.read("/kpi/registry", state="sent", search="GOO")["total"] == 1
    monkeypatch.setenv("AIRFLOW_VAR_KPI-REGISTRY", "{")
    assert "not JSON" in operations.read("/kpi/registry")["problem"]


SEARCHES = ["/ohlcv/symbols", "/ohlcv/coverage", "/ohlcv/tasks", "/clicks/hires", "/telemetry/events", "/kpi/grid"]


def test_text_of_a_parameter_is_never_part_of_a_statement(operations: Operations, migrated: Migrated) -> None:
    market(migrated, *NASTY, "plain")
    migrated("clicks", "telemetry", "kpi")
    for text in NASTY:
        found = {item["symbol"] for item in operations.read("/ohlcv/symbols", search=text)["items"]}
        assert found == {symbol for symbol in [*NASTY, "plain"] if text in symbol}
        assert operations.read("/ohlcv/bars", symbol=text)["symbol"] == text
        for path in SEARCHES:
            operations.read(path, search=text)
        for name in ("timeframe", "status", "sort", "order"):
            wrong: dict[str, Any] = {name: text}
            assert operations.get("/ohlcv/tasks", **wrong).status_code == 400
        assert operations.get("/analytics/scores", organization_id=text).status_code == 400
        assert operations.read("/dags/kpi_dispatch/run", run_id=text)["wrote"][0]["figures"][0]["value"] == 0
        assert operations.read("/alerts", dag_id=text)["total"] == 0


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("/clicks/hires", {"limit": 0}),
        ("/clicks/hires", {"limit": 201}),
        ("/clicks/hires", {"offset": -1}),
        ("/clicks/hires", {"offset": 10**7}),
        ("/clicks/hires", {"search": "x" * 201}),
        ("/clicks/hires", {"search": "\0"}),
        ("/clicks/days", {"from": "yesterday"}),
        ("/clicks/days", {"from": "2026-11-02", "to": "2026-11-02"}),
        ("/clicks/days", {"from": "2025-01-01", "to": "2026-11-02"}),
        ("/clicks/days", {"to": "0001-01-01"}),
        ("/clicks/days", {"from": "9999-12-31"}),
        ("/kpi/grid", {"from": "2026-01-01", "to": "2026-11-02"}),
        ("/ohlcv/bars", {}),
        ("/ohlcv/bars", {"symbol": "A", "timeframe": "1m"}),
        ("/ohlcv/bars", {"symbol": "A", "start": "2026-11-02T00:00:00"}),
        ("/ohlcv/bars", {"symbol": "A", "start": "2020-11-02T00:00:00Z"}),
        ("/ohlcv/bars", {"symbol": "A", "end": "0001-01-01T00:00:00Z"}),
        ("/ohlcv/bars", {"symbol": "A", "end": "9999-12-31T23:59:59-14:00"}),
        ("/dags/click_rollups/run", {}),
        ("/dags/click_rollups/run", {"run_id": "x" * 251}),
        ("/dags/click_rollups/run", {"run_id": "x\0"}),
    ],
)
def test_parameter_outside_its_bounds_is_named(
    operations: Operations, migrated: Migrated, path: str, params: dict[str, Any]
) -> None:
    market(migrated, "A")
    response = operations.get(path, **params)
    assert (response.status_code, response.json()["reason"]) == (400, "invalid"), response.text
    assert any(name in response.json()["detail"] for name in [*params, "symbol", "run_id", "to", "start"])


def test_slow_statement_is_a_timeout_and_other_databases_respond(
    operations: Operations, migrated: Migrated, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    migrated("clicks", "telemetry", "ops")
    for module, name in ((database, "STATEMENT_TIMEOUT"), (freshness, "QUERY_TIMEOUT")):
        monkeypatch.setattr(module, name, timedelta(milliseconds=300))
    with psycopg.connect(database_url) as writer:
        writer.execute("lock table public.click_rollups")
        response = operations.get("/clicks/days")
        assert (response.status_code, response.json()["reason"]) == (504, "timeout")
        assert "Choose a shorter range" in response.json()["detail"]
        assert operations.get("/telemetry/days").status_code == 200
        tab = operations.read("/dags/click_rollups")
        assert (tab["figures"], "did not respond in time" in " ".join(tab["problems"])) == ([], True)
    assert operations.get("/clicks/days").status_code == 200


def test_silent_server_holds_only_the_threads_of_its_own_database(
    operations: Operations, migrated: Migrated, monkeypatch: pytest.MonkeyPatch, mute_server: int
) -> None:
    migrated("telemetry", "ops")
    monkeypatch.setenv("AIRFLOW_CONN_CLICKS_DB", f"postgresql://u@127.0.0.1:{mute_server}/x?connect_timeout=3")
    monkeypatch.setattr(database, "REQUEST_TIMEOUT", 0.5)
    statuses: list[int] = []
    clients = [
        threading.Thread(target=lambda: statuses.append(operations.get("/clicks/days").status_code)) for _ in range(6)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert statuses == [504] * 6
    monkeypatch.setattr(database, "REQUEST_TIMEOUT", 60.0)
    assert operations.get("/telemetry/days").status_code == 200


def test_connection_that_the_server_closed_is_replaced(
    operations: Operations, migrated: Migrated, connection: psycopg.Connection
) -> None:
    migrated("clicks")
    assert operations.get("/clicks/days").status_code == 200
    connection.execute(
        "select pg_terminate_backend(pid, 10000) from pg_stat_activity where application_name like 'aggregator/op%'"
    )
    assert operations.get("/clicks/days").status_code == 200


def test_transactions_are_read_only(migrated: Migrated) -> None:
    migrated("clicks")
    found = database.Database("clicks_db")
    with pytest.raises(database.ReadError, match="read_only_sql_transaction"):
        found._read(lambda reader: reader._cursor.execute("insert into public.hires values ('x')"))
    found.close()


def test_sample_data_fills_every_view(operations: Operations, migrated: Migrated) -> None:
    connection = migrated("market", "clicks", "analytics", "telemetry", "kpi", "ops")
    today = datetime.now(UTC).date()
    for _ in range(2):  # the second time, the rows exist
        with connection.transaction(), connection.cursor() as cursor:
            cursor.executemany("insert into public.hires values (%s) on conflict do nothing", [["a"], ["b"]])
            load_analytics(connection, today)
            load_candles(connection, today)
            load_history(connection)
    assert sum(each is not None for each in operations.read("/clicks/days")["valid"]) >= 28
    assert sum(each is not None for each in operations.read("/telemetry/days")["counts"]) >= 28
    assert sum(each is not None for each in operations.read("/analytics/scores")["avg"]) >= 29
    assert sum(each is not None for each in operations.read("/analytics/enrichment")["enriched"]) >= 28
    events = operations.read("/analytics/events")["series"][0]["count"]
    assert sum(each is not None for each in events) >= 26
    statuses = {job["status"] for job in operations.read("/kpi/jobs")["items"]}
    assert {"triggered", "partial"} & statuses
    cells = [cell["status"] for item in operations.read("/kpi/grid")["items"] for cell in item["cells"] if cell]
    assert {"failed", "triggered", "completed"} <= {*cells}
    days = connection.execute("select count(distinct ts::date) from ohlcv.candles where symbol = 'BTCUSD'").fetchone()
    assert days is not None
    assert days[0] >= 28
