"""What the process of a task costs, by what it inherits from the process that forks it."""

from __future__ import annotations

import os
import statistics
import tempfile
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from rich.table import Table

from aggregator.postgres.migrations import migrate
from dev import task_process
from dev.task_process import Task

if TYPE_CHECKING:
    from rich.console import Console

    from dev.postgres import Postgres

ROUNDS = 5

_EMPTY = """
from airflow.sdk import DAG
from airflow.providers.standard.operators.python import PythonOperator

with DAG("empty", schedule=None):
    PythonOperator(task_id="empty", python_callable=print)
"""


def run(server: Postgres, *, quick: bool, console: Console) -> None:
    """Run an empty task, and one of ``ohlcv_aggregation`` without candles, in forked processes.

    Args:
        server: For the candles.
        quick: Run each task once.
        console: Output for the table.
    """
    url = server.ensure_database("bench_task_cost")
    migrate(partial(psycopg.connect, url), "market")
    now = datetime.now(UTC)
    interval = (now - timedelta(minutes=5)).isoformat(), now.isoformat()
    with tempfile.TemporaryDirectory() as folder:
        for dag in (task_process.REPOSITORY / "dags").glob("*.py"):
            (Path(folder) / dag.name).symlink_to(dag)
        (Path(folder) / "empty.py").write_text(_EMPTY)
        # The first task of a process is a warm-up.
        names = [("empty", "empty"), ("empty", "empty"), ("ohlcv_aggregation", "build_bars")]
        tasks = [Task(*name, *interval) for name in names]
        rounds = 1 if quick else ROUNDS
        measured = {
            program: [
                task_process.run(
                    program, tasks, dags=Path(folder), environment={**os.environ, "AIRFLOW_CONN_MARKET_DB": url}
                )[1:]
                for _ in range(rounds)
            ]
            for program in ("unprepared", "scheduler", "celery")
        }
    server.drop_database("bench_task_cost")
    table = Table("task", *measured, "ratio", title="CPU seconds of a task process")
    for index, task in enumerate(tasks[1:]):
        cpu = [statistics.median(results[index].cpu_seconds for results in each) for each in measured.values()]
        table.add_row(f"{task.dag_id}.{task.task_id}", *(f"{each:.2f}" for each in cpu), f"{cpu[0] / cpu[-1]:.1f}")
    console.print(table)
