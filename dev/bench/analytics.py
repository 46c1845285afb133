"""The analytics rollups of ten million events, compared with DuckDB reading from PostgreSQL.

DuckDB's own PostgreSQL extension has to be downloaded. Here it reads the columns it needs from COPY as CSV, in a pipe.
"""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from rich.table import Table

from aggregator.core.paths import SQL
from aggregator.postgres.migrations import migrate
from aggregator.postgres.upsert import Query, UpsertSpec, upsert
from dev.postgres import PROGRAMS

if TYPE_CHECKING:
    from rich.console import Console

    from dev.postgres import Postgres

EVENTS = 10_000_000
QUICK_EVENTS = 20_000
"""Rows of ``analytics.contact_activity``, spread evenly over one month of 30 days."""

MONTH = (datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))
DAY = (datetime(2026, 11, 15, tzinfo=UTC), datetime(2026, 11, 16, tzinfo=UTC))

AGGREGATES = ("analytics.event_aggregates", ["organization_id", "date", "event_type", "channel"])
STATS = ("analytics.campaign_daily_stats", ["campaign_id", "organization_id", "date"])

_FILL = """
insert into analytics.contact_activity (organization_id, contact_id, event_type, event_source, created_at)
select
    lpad(to_hex(n %% 50), 32, '0')::uuid, lpad(to_hex(n * 7919::bigint %% 500000), 32, '0')::uuid,
    (array['email_sent', 'email_delivered', 'email_opened', 'email_clicked', 'page_view'])[1 + n / 50 %% 5],
    lpad(to_hex(n %% 1000), 32, '0')::uuid::text,
    timestamp '2026-11-01' + n * (interval '30 days' / %(events)s)
from generate_series(0, %(events)s - 1) as n
"""

# Runs in its own process, so that the peak memory is that of one rollup.
_DUCKDB = """
import resource, sys, duckdb
duckdb.execute("set enable_progress_bar = false")  # after a few seconds, it is written to standard output
columns = {"org": "UUID", "contact": "UUID", "type": "VARCHAR", "source": "VARCHAR"}
given = duckdb.read_csv("/dev/stdin", header=False, sep=",", columns=columns, auto_detect=False)
duckdb.execute("create table rolled_up as " + sys.argv[1])
((rows,),) = duckdb.sql("select count(*) from rolled_up").fetchall()
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
_PER_TYPE = "select org, type, count(*), count(distinct contact) from given group by all"
_PER_CAMPAIGN = """
select source::uuid, org, count(*) filter (type = 'email_sent'), count(*) filter (type = 'email_delivered'),
    count(*) filter (type = 'email_opened'), count(distinct contact) filter (type = 'email_opened'),
    count(*) filter (type = 'email_clicked'), count(distinct contact) filter (type = 'email_clicked')
from given where type like 'email%' group by all
"""
JOBS: dict[str, tuple[str, tuple[str, list[str]], tuple[datetime, datetime], str]] = {
    "hourly, a day": ("event_aggregates", AGGREGATES, DAY, _PER_TYPE),
    "daily reports": ("campaign_daily_stats", STATS, DAY, _PER_CAMPAIGN),
    "monthly usage": ("monthly_usage", AGGREGATES, MONTH, _PER_TYPE),
}
"""Name → query, table and key, window, and DuckDB's query."""


def run(server: Postgres, *, quick: bool, console: Console) -> None:
    """Roll up a day and a month in both ways, ours twice, and print seconds and peak memory.

    Args:
        server: Server for a temporary database.
        quick: Roll up few events.
        console: Output for the table.
    """
    events = QUICK_EVENTS if quick else EVENTS
    table = Table(
        "job",
        "rows",
        "seconds",
        "again",
        "backend MB",
        "DuckDB seconds",
        "DuckDB MB",
        title=f"Rollups of {events:,} events",
    )
    url = server.ensure_database("bench_analytics")
    try:
        migrate(partial(psycopg.connect, url), "analytics")
        with (
            console.status(f"analytics: generating {events:,} events"),
            psycopg.connect(url, autocommit=True) as connection,
        ):
            psycopg.ClientCursor(connection).execute(_FILL, {"events": events})
            connection.execute("vacuum analyze analytics.contact_activity")
        for name, (query, (written, key), window, peer) in JOBS.items():
            with console.status(name):
                rows, seconds, peak = _ours(url, query, written, key, window)
                _, again, _ = _ours(url, query, written, key, window)
                peer_rows, peer_seconds, peer_peak = _duckdb(url, window, peer)
            if rows != peer_rows:
                msg = f"{name}: DuckDB returned {peer_rows} rows, ours {rows}. Their times cannot be compared."
                raise RuntimeError(msg)
            measurements = [seconds, again, peak, peer_seconds, peer_peak]
            table.add_row(name, f"{rows:,}", *(f"{value:.1f}" for value in measurements))
    finally:
        server.drop_database("bench_analytics")
    console.print(table)


def _ours(
    url: str, query: str, table: str, key: list[str], window: tuple[datetime, datetime]
) -> tuple[int, float, float]:
    """Rows, seconds, and peak memory of the backend in MB, including the shared buffers that it touched."""
    statement = (SQL / "analytics" / "queries" / f"{query}.sql").read_text()
    parameters = {"data_interval_start": window[0], "data_interval_end": window[1], "groups": None}
    with psycopg.connect(url) as connection:
        connection.execute("set local timezone to 'UTC'")
        started = time.perf_counter()
        counts = upsert(connection.cursor(), UpsertSpec(table, key), Query(statement, parameters)).counts
        connection.commit()
        seconds = time.perf_counter() - started
        return counts.inserted + counts.unchanged, seconds, _peak_megabytes(connection.info.backend_pid)


def _peak_megabytes(pid: int) -> float:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def _duckdb(url: str, window: tuple[datetime, datetime], query: str) -> tuple[int, float, float]:
    """Rows, seconds including the transfer, and DuckDB's peak memory in MB."""
    copy = (
        "copy (select organization_id, contact_id, event_type, event_source from analytics.contact_activity where "  # noqa: S608
        f"created_at >= '{window[0]:%Y-%m-%d}' and created_at < '{window[1]:%Y-%m-%d}') to stdout (format csv)"
    )
    started = time.perf_counter()
    with subprocess.Popen([PROGRAMS / "psql", url, "-c", copy], stdout=subprocess.PIPE) as source:
        done = subprocess.run(
            [sys.executable, "-c", _DUCKDB, query], stdin=source.stdout, capture_output=True, text=True, check=True
        )
    seconds = time.perf_counter() - started
    rows, kilobytes = map(int, done.stdout.split())
    return rows, seconds, kilobytes / 1024
