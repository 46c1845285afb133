"""``ohlcv_aggregation``: what a whole run costs on a real Airflow, by the number of symbols."""

from __future__ import annotations

import statistics
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
from rich.table import Table

from dev.bench import airflow_stack
from dev.bench.ohlcv import MINUTE, World

if TYPE_CHECKING:
    from rich.console import Console

    from dev.postgres import Postgres
    from dev.stack import Stack

SIZES = (100, 1_000, 10_000)
QUICK_SIZES = (10,)
"""Symbols."""

ROUNDS = 3
DAG_ID = "ohlcv_aggregation"

_EMPTY = "delete from ohlcv.candles; truncate ohlcv.bars, ohlcv.tasks, ohlcv.stale_windows; delete from ohlcv.assets"
_FORGET_NEWEST = """
with newest as (select max(cursor) - interval '15 minutes' as ts from ohlcv.tasks where timeframe = '15m'),
forgotten as (delete from ohlcv.bars using newest where timeframe = '15m' and bars.ts = newest.ts)

update ohlcv.tasks set cursor = newest.ts, built_until = newest.ts, next_run_at = null
from newest where timeframe = '15m'
"""


def run(server: Postgres, *, quick: bool, console: Console) -> None:  # noqa: ARG001 - the stack has its own
    """Run the DAG for one 15m window of an increasing number of symbols, and print the cost.

    Args:
        server: Not used.
        quick: Use few symbols.
        console: Output for the table.
    """
    table = Table("symbols", "task instances", "seconds", "CPU seconds of Airflow", title="OHLCV: a run of the DAG")
    with (
        airflow_stack.running({DAG_ID}, console) as stack,
        psycopg.connect(stack.products_url, autocommit=True) as connection,
    ):
        world = World(stack.products_url, connection)
        for symbols in QUICK_SIZES if quick else SIZES:
            with console.status(f"ohlcv_run: {symbols:,} symbols"):
                connection.execute(_EMPTY)
                world.register(symbols, "5m")
                now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
                world.add_candles(range(symbols), now - timedelta(hours=2), now, base="5m", step=5 * MINUTE)
                _run(stack)
                rounds = [_measure(stack, connection, symbols) for _ in range(ROUNDS)]
            instances, seconds, cpu = map(statistics.median, zip(*rounds, strict=True))
            table.add_row(f"{symbols:,}", f"{instances}", f"{seconds:.1f}", f"{cpu:.1f}")
    console.print(table)


def _measure(stack: Stack, connection: psycopg.Connection, symbols: int) -> tuple[int, float, float]:
    connection.execute(_FORGET_NEWEST)
    connection.execute("vacuum analyze ohlcv.tasks, ohlcv.bars")
    cpu, started = airflow_stack.cpu_seconds(stack), time.monotonic()
    run_id, inserted = _run(stack)
    seconds, cpu = time.monotonic() - started, airflow_stack.cpu_seconds(stack) - cpu
    if inserted != symbols:
        msg = f"{inserted} bars of {symbols} symbols were built. A scheduled run may have built the others."
        raise RuntimeError(msg)
    instances = stack.airflow.get(f"dags/{DAG_ID}/dagRuns/{run_id}/taskInstances")["task_instances"]
    return sum(instance["state"] != "skipped" for instance in instances), seconds, cpu


def _run(stack: Stack) -> tuple[str, int]:
    run_id = stack.airflow.start(DAG_ID)
    state = stack.airflow.wait_for_run(DAG_ID, run_id, seconds=300)["state"]
    if state != "success":
        msg = f"The run ended as {state}."
        raise RuntimeError(msg)
    return run_id, stack.airflow.result(DAG_ID, run_id, "build_bars", key="totals")["inserted"]
