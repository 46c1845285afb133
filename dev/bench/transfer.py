"""Transfer from Analytics Engine to PostgreSQL: peak memory and time by the size of the result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from rich.table import Table

from dev.analytics_engine.client import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from dev.analytics_engine.client import AnalyticsEngineControl
    from dev.postgres import Postgres

SIZES = (1_000, 100_000, 1_000_000)
"""Rows of the result."""

QUICK_SIZES = (1_000, 50_000)

# Runs in its own process, so that the peak memory is that of one transfer.
_TRANSFER = """
import json, resource, sys, time
from datetime import datetime, timedelta
from airflow.sdk import DAG
from aggregator.analytics_engine.operators import AnalyticsEngineToPostgresOperator
from aggregator.core.timetable import OffsetCronTimetable
from dev.bench.transfer import OPERATOR
from tests.airflow_context import context

with DAG("bench", schedule=OffsetCronTimetable("0 0 * * *", offset=timedelta(hours=1))):
    task = AnalyticsEngineToPostgresOperator(task_id="transfer", postgres_conn_id="bench_db", **OPERATOR)
start = datetime.fromisoformat(sys.argv[1])
given = context(task, start, start + timedelta(days=1))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.perf_counter()
result = task.execute(given)
seconds = time.perf_counter() - started
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"inserted": result["inserted"], "seconds": seconds, "before": before, "after": after}))
"""

OPERATOR = {
    "sql": "select blob1 as name, sum(_sample_interval) as n from bench where timestamp >= %(data_interval_start)s "
    "and timestamp < %(data_interval_end)s group by name format JSON",
    "select": "select name, n::bigint as n from pg_temp.analytics_engine_answer",
    "stored": "select count(*) from public.totals",
    "table": "public.totals",
    "key": ["name"],
}
"""Arguments of the measured operator."""


def run(server: Postgres, *, quick: bool, console: Console) -> None:
    """Transfer results of several sizes, each into an empty table, and print seconds and peak memory.

    Args:
        server: Server for a temporary database.
        quick: Transfer small results.
        console: Output for the table.
    """
    table = Table("rows", "seconds", "peak MB", "added by the transfer", title="Analytics Engine to PostgreSQL")
    with tempfile.TemporaryDirectory(prefix="aggregator-bench-") as folder, running(Path(folder)) as analytics_engine:
        for size in QUICK_SIZES if quick else SIZES:
            with console.status(f"transfer: {size:,} rows"):
                measured = measure(server, analytics_engine, size)
            table.add_row(
                f"{measured['inserted']:,}",
                f"{measured['seconds']:.1f}",
                f"{measured['after'] / 1024:.0f}",
                f"{(measured['after'] - measured['before']) / 1024:.0f}",
            )
    console.print(table)


def measure(server: Postgres, analytics_engine: AnalyticsEngineControl, size: int) -> dict[str, float]:
    """Transfer a result of ``size`` rows in a separate process.

    Args:
        server: Server for a temporary database.
        analytics_engine: Stand-in that serves the result.
        size: Number of rows.

    Returns:
        Rows ``inserted``, ``seconds``, and the peak memory of the process ``before`` and ``after``, in KiB.

    Raises:
        RuntimeError: The process failed; the text is its error output.
    """
    yesterday = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    url = server.ensure_database("bench_transfer")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("drop table if exists public.totals")
        connection.execute("create table public.totals (name text primary key, n bigint)")
    analytics_engine.delete("bench")
    analytics_engine.write("bench", _events(size, yesterday))
    host, port = analytics_engine.url.rsplit(":", 1)
    account = {"conn_type": "http", "host": host, "port": int(port), "password": "t", "extra": {"account_id": "a"}}
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "AIRFLOW_CONN_ANALYTICS_ENGINE": json.dumps(account),
        "AIRFLOW_CONN_BENCH_DB": url,
    }
    try:
        command = [sys.executable, "-c", _TRANSFER, yesterday.isoformat()]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return measured
    finally:
        server.drop_database("bench_transfer")


def _events(size: int, day: datetime) -> Iterator[dict[str, object]]:
    noon = f"{day:%Y-%m-%d} 12:00:00"
    return ({"timestamp": noon, "index1": "", "blob1": f"name-{number:09}-of-some-length"} for number in range(size))
