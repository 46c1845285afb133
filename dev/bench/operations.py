"""Response times of the API of the Operations page: 10,000 symbols, a year of days, 1,000 KPIs."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import psycopg
from rich.table import Table

from aggregator.kpi.registry import VARIABLE
from aggregator.postgres.migrations import databases, migrate

if TYPE_CHECKING:
    from rich.console import Console

    from dev.api_server import ApiServer
    from dev.postgres import Postgres

SIZES = {"symbols": 10_000, "days": 365, "kpis": 1_000, "hires": 1_000, "organizations": 50, "types": 40, "runs": 2_000}
QUICK = {"symbols": 20, "days": 10, "kpis": 5, "hires": 5, "organizations": 2, "types": 3, "runs": 5}

CALLS = 40
QUICK_CALLS = 3
"""Calls of each path."""

LIMIT = 200
"""Milliseconds of the slowest call, p95."""

FILL = """
select ohlcv.add_candle_partitions(now() - interval '40 days', now());
insert into ohlcv.assets (symbol, base_timeframe)
select 'SYM' || lpad(n::text, 5, '0'), case when n %% 10 = 0 then '1m' else '5m' end
from generate_series(1, %(symbols)s) as n;

insert into ohlcv.tasks (
    symbol, timeframe, source_timeframe, size, mandatory, priority, cursor, built_until, status, hard_fails, last_error
)
select
    asset.symbol, frame.timeframe, coalesce(frame.source_timeframe, asset.base_timeframe), frame.size, false, 100,
    date_bin(frame.size, now() - interval '5 minutes', timestamptz '2000-01-01 00:00+00'),
    date_bin(frame.size, now() - interval '5 minutes', timestamptz '2000-01-01 00:00+00'),
    case when hashtext(asset.symbol) %% 500 = 0 then 'disabled' else 'idle' end,
    case when hashtext(asset.symbol) %% 500 = 0 then 3 else 0 end,
    case when hashtext(asset.symbol) %% 500 = 0 then 'a candle with an invalid price' end
from ohlcv.assets as asset
cross join ohlcv.timeframes as frame
where not frame.is_base;

insert into ohlcv.candles (symbol, timeframe, ts, open, high, low, close, volume, trades)
select
    asset.symbol, asset.base_timeframe, date_bin('5 minutes', now(), 'epoch') - n * interval '5 minutes',
    1, 2, 1, 2, 3, 4
from ohlcv.assets as asset cross join generate_series(0, 36) as n;

insert into ohlcv.bars (
    symbol, timeframe, ts, open, high, low, close, volume, price_volume, trades, candles, expected_candles,
    derivation_version
)
select
    asset.symbol, '1d', date_bin('1 day', now(), timestamptz '2000-01-01 00:00+00') - n * interval '1 day',
    1, 2, 1, 2, 3, 18, 4, 280, 288, 1
from generate_series(1, %(days)s) as n cross join ohlcv.assets as asset
where n %% 50 <> 7;

insert into ohlcv.bars (
    symbol, timeframe, ts, open, high, low, close, volume, price_volume, trades, candles, expected_candles,
    derivation_version
)
select
    asset.symbol, '15m', date_bin('15 minutes', now(), timestamptz '2000-01-01 00:00+00') - n * interval '15 minutes',
    1, 2, 1, 2, 3, 18, 4, 3, 3, 1
from ohlcv.assets as asset
cross join lateral generate_series(1, case when asset.symbol <= 'SYM00010' then 9000 else 100 end) as n
where n %% 40 <> 7;

insert into ops.ops_runlog (job_name, env_name, run_id, as_of, status, checkpoints, totals, started_at, finished_at)
select
    'agg-master', 'PROD', 'scheduled__' || n, now() - n * interval '5 minutes', 'success',
    '[{"name": "planned", "due": 8, "claimed": 8, "symbols": 3}, {"name": "aggregated", "shard": 0}]',
    '{"bars": 8, "inserted": 8}',
    now() - n * interval '5 minutes', now() - n * interval '5 minutes' + interval '3 seconds'
from generate_series(1, %(runs)s) as n;

insert into public.hires select 'hire-' || n from generate_series(1, %(hires)s) as n;
insert into public.click_rollups (day, hire_id, valid_clicks, invalid_clicks)
select current_date - day, 'hire-' || n, n, 1
from generate_series(1, %(days)s) as day cross join generate_series(1, %(hires)s) as n;

insert into public.telemetry_daily (date, event, count, unique_users)
select current_date - day, 'event ' || n, n, 1
from generate_series(1, %(days)s) as day cross join generate_series(1, %(types)s) as n;

insert into analytics.event_aggregates (organization_id, date, event_type, channel, count, unique_count)
select lpad(to_hex(n), 32, '0')::uuid, current_date - day, 'event ' || type, null, n, 1
from generate_series(1, %(days)s) as day
cross join generate_series(1, %(organizations)s) as n cross join generate_series(1, 10) as type;
insert into analytics.campaign_daily_stats (campaign_id, organization_id, date, sent, delivered)
select lpad(to_hex(n * 10 + campaign), 32, '0')::uuid, lpad(to_hex(n), 32, '0')::uuid, current_date - day, 10, 9
from generate_series(1, %(days)s) as day
cross join generate_series(1, %(organizations)s) as n cross join generate_series(1, 5) as campaign;
insert into analytics.daily_score_distribution
select lpad(to_hex(n), 32, '0')::uuid, current_date - day, 40, 1, 99, 40, 80, 90, 500
from generate_series(1, %(days)s) as day cross join generate_series(1, %(organizations)s) as n;
insert into analytics.enrichment_metrics
select lpad(to_hex(n), 32, '0')::uuid, current_date - day, 40, 80, 0.1, 0.9
from generate_series(1, %(days)s) as day cross join generate_series(1, %(organizations)s) as n;

insert into kpi.jobs (trace_id, dag_id, run_id, environment, created_at, settled_at)
select
    'trace_' || to_char(current_date - day, 'YYYYMMDD') || '_120000_abcdefgh', 'kpi_dispatch', 'scheduled__' || day,
    'production', current_date - day + interval '12 hours', current_date - day + interval '13 hours'
from generate_series(0, %(days)s) as day;
alter table kpi.job_kpis disable trigger user;
insert into kpi.job_kpis (trace_id, kpi_id, name, type, report_back, metadata, status, sent_at)
select
    job.trace_id, 'kpi-' || n, 'KPI ' || n, 'price', true, '{}',
    case when n %% 20 = 0 then 'failed' else 'completed' end, job.created_at
from kpi.jobs as job cross join generate_series(1, %(kpis)s) as n;

insert into ops.alerts (kind, subject, members, since, text, settled_at)
select 'failed', 'click_rollups', array['run ' || n], now(), 'failed', case when n > 1 then now() end
from generate_series(1, %(runs)s) as n;
analyze;
"""

_YEAR = {"from": "-365", "to": "1"}
_QUARTER = {"from": "-91", "to": "1"}


def calls(sizes: dict[str, int], number: int) -> dict[str, dict[str, Any]]:
    """Path → parameters of a call; each has other symbols, offsets or filters."""
    symbol = f"SYM{1 + number % 10:05d}"
    offset = {"limit": 50, "offset": number * 50 % sizes["symbols"]}
    return {
        "/overview": {},
        "/alerts": {"state": "all", "limit": 200},
        "/ohlcv/symbols": {"search": str(number % 10), **offset},
        "/ohlcv/bars": {"symbol": symbol},
        "/ohlcv/bars?windows=2000": {"symbol": symbol, "start": _ago(15 * 1999), "end": _ago(0)},
        "/ohlcv/coverage": {**offset, **_days(_QUARTER)},
        "/ohlcv/tasks": {"search": str(number % 10), **offset},
        "/ohlcv/tasks?sort=age": {"sort": "age", "order": "asc", **offset},
        "/ohlcv/runs": {"limit": 200, "offset": number},
        "/clicks/days": _days(_YEAR),
        "/clicks/hires": {"search": str(number % 10), **_days(_YEAR)},
        "/telemetry/days": _days(_YEAR),
        "/telemetry/events": _days(_YEAR),
        "/analytics/organizations": {},
        "/analytics/scores": _days(_YEAR),
        "/analytics/campaigns": _days(_YEAR),
        "/analytics/enrichment": _days(_YEAR),
        "/analytics/events": _days(_YEAR),
        "/analytics/usage": {},
        "/kpi/grid": {**_days(_QUARTER), "offset": number * 50 % sizes["kpis"]},
        "/kpi/jobs": _days(_YEAR),
        "/kpi/registry": {},
        "/dags/ohlcv_aggregation": {},
        "/dags/click_rollups/run": {"run_id": "x", "start": _ago(1440), "end": _ago(0)},
    }


def _ago(minutes: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - minutes * 60))


def _days(range_: dict[str, str]) -> dict[str, str]:
    return {name: _ago(-int(days) * 1440)[:10] for name, days in range_.items()}


def run(server: Postgres, *, quick: bool, console: Console) -> None:
    """Call every path as a signed-in user of Airflow's API server, and print p50 and p95.

    Args:
        server: Server for a temporary database.
        quick: Use few rows and calls.
        console: Output for the table.
    """
    # Airflow reads its configuration at this import, which takes seconds.
    from dev import api_server  # noqa: PLC0415

    sizes, repeats = (QUICK, QUICK_CALLS) if quick else (SIZES, CALLS)
    table = Table(
        "path",
        "p50 ms",
        "p95 ms",
        "kB",
        title="Operations API: " + ", ".join(f"{n:,} {what}" for what, n in sizes.items()),
    )
    url = server.ensure_database("bench_operations")
    connections = {f"AIRFLOW_CONN_{name.upper()}_DB": url for name in databases()}
    kpi = {"name": "KPI", "type": "price", "active": True, "webhookUrl": "https://n8n.example.com/webhook/x"}
    registry = json.dumps({"kpis": [{**kpi, "id": f"kpi-{n}"} for n in range(sizes["kpis"])]})
    try:
        with console.status("operations: generating rows"), psycopg.connect(url, autocommit=True) as connection:
            for name in databases():
                migrate(partial(psycopg.connect, url), name)
            cursor = psycopg.ClientCursor(connection)
            for statement in FILL.split(";\n"):
                if statement.strip():
                    cursor.execute(statement, sizes)
        with (
            tempfile.TemporaryDirectory() as folder,
            patch.dict(os.environ, {**connections, f"AIRFLOW_VAR_{VARIABLE.upper()}": registry}),
            api_server.running(Path(folder)) as airflow,
        ):
            slowest = max(_measure(airflow, sizes, repeats, table, console))
    finally:
        server.drop_database("bench_operations")
    console.print(table)
    console.print(f"Slowest call, p95: {slowest:.0f} ms (limit {LIMIT} ms)")


def _measure(airflow: ApiServer, sizes: dict[str, int], repeats: int, table: Table, console: Console) -> list[float]:
    headers = {"Authorization": f"Bearer {airflow.tokens['admin']}"}
    slow = []
    for path in calls(sizes, 0):
        with console.status(path):
            milliseconds, size = [], 0
            for number in range(repeats + 1):
                started = time.perf_counter()
                response = airflow.client.get(
                    f"/api/operations{path.partition('?')[0]}", params=calls(sizes, number)[path], headers=headers
                )
                milliseconds.append((time.perf_counter() - started) * 1000)
                response.raise_for_status()
                size = max(size, len(response.content))
        # The first call opens connections and reads files.
        warm = sorted(milliseconds[1:])
        p95 = warm[round(0.95 * (len(warm) - 1))]
        slow.append(p95)
        table.add_row(path, f"{statistics.median(warm):.0f}", f"{p95:.0f}", f"{size / 1000:.0f}")
    return slow
