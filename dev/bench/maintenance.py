"""A year of OHLCV runs in Airflow's database, with the daily maintenance and without: size, scheduler's queries."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

    from dev.postgres import Postgres

DAG = "ohlcv_aggregation"
TASKS = ("plan", "aggregate", "finish")
KEEP = timedelta(days=90)
MONTH = timedelta(days=30)
MONTHS = 12
BEGIN = datetime(2025, 11, 1, tzinfo=UTC)

HISTORY = """
with runs as (
    insert into dag_run (
        dag_id, run_id, run_type, state, logical_date, data_interval_start, data_interval_end, run_after, queued_at,
        start_date, end_date, created_at, updated_at, last_scheduling_decision, clear_number, log_template_id
    )
    select
        %(dag)s, 'scheduled__' || due, 'scheduled', 'success', due - %(every)s, due - %(every)s, due, due, due, due,
        due, due, due, due, 0, (select max(id) from log_template)
    from generate_series(%(begin)s + %(every)s, %(end)s, %(every)s) as due
    returning id, run_id, run_after
),
instances as (
    insert into task_instance (
        id, dag_id, run_id, task_id, map_index, state, start_date, end_date, updated_at, queued_dttm, scheduled_dttm,
        duration, try_number, max_tries, pool, pool_slots, queue, priority_weight, operator, hostname, unixname
    )
    select
        gen_random_uuid(), %(dag)s, run_id, task_id, -1, 'success', run_after, run_after, run_after, run_after,
        run_after, 1, 1, 2, 'default_pool', 1, 'default', 1, 'Operator', 'worker', 'airflow'
    from runs cross join unnest(%(tasks)s::text[]) as task_id
),
results as (
    insert into xcom (dag_run_id, task_id, map_index, key, dag_id, run_id, value, timestamp)
    select id, task_id, -1, 'return_value', %(dag)s, run_id, '{"inserted": 1000, "unchanged": 0}'::jsonb, run_after
    from runs cross join unnest(%(tasks)s::text[]) as task_id
)
insert into log (dttm, dag_id, task_id, run_id, event, owner)
select run_after, %(dag)s, task_id, run_id, event, 'market-data'
from runs cross join unnest(%(tasks)s::text[]) as task_id cross join (values ('running'), ('success')) as e (event)
"""
"""Runs that ended, each with its task instances, XComs and entries of the audit log."""


def create(server: Postgres, name: str) -> str:
    """Create a database of Airflow, and return its libpq URL."""
    url = server.ensure_database(name)
    subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"], env=environment(url), check=True, capture_output=True
    )
    return url


def environment(url: str) -> dict[str, str]:
    """Return the environment of an Airflow with this database."""
    return {**os.environ, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": _sqlalchemy(url)}


def add_history(url: str, begin: datetime, end: datetime, every: timedelta) -> None:
    """Insert the runs of a time, one at each interval."""
    with psycopg.connect(url) as connection:
        values = {"dag": DAG, "tasks": list(TASKS), "begin": begin, "end": end, "every": every}
        connection.execute(HISTORY, values)


def run(server: Postgres, *, quick: bool, console: Console) -> None:
    """Insert the runs month by month and measure.

    Args:
        server: The PostgreSQL server.
        quick: Whether to insert fewer runs, to test the bench.
        console: Output for the table.
    """
    from aggregator import maintenance  # noqa: PLC0415 - Airflow reads its configuration at the first import

    every = timedelta(hours=2) if quick else timedelta(minutes=5)
    with_it, without = create(server, "with_maintenance"), create(server, "without_maintenance")
    table = Table("month", "maintenance: MB", "queries, ms", "cleaned, s", "without: MB", "queries, ms")
    for month in range(1, MONTHS + 1):
        end = BEGIN + month * MONTH
        for url in (with_it, without):
            add_history(url, end - MONTH, end, every)
        os.environ.update(environment(with_it))
        started = time.perf_counter()
        maintenance.clean_airflow(end - KEEP)
        seconds = time.perf_counter() - started
        figures = [figure for url in (with_it, without) for figure in measure(url)]
        table.add_row(
            str(month),
            *(f"{one:.0f}" if kind == "mb" else f"{one:.1f}" for kind, one in figures[:2]),
            f"{seconds:.0f}",
            *(f"{one:.0f}" if kind == "mb" else f"{one:.1f}" for kind, one in figures[2:]),
        )
    console.print(table)


def measure(url: str) -> list[tuple[str, float]]:
    """Return the size of a database, and the time of the scheduler's queries about runs: one loop, median of 20."""
    from airflow.models import DagRun, TaskInstance  # noqa: PLC0415
    from sqlalchemy import create_engine, func, select  # noqa: PLC0415
    from sqlalchemy.orm import Session  # noqa: PLC0415

    with psycopg.connect(url, autocommit=True) as connection:
        # Autovacuum does this within a minute.
        connection.execute("vacuum analyze")
        row = connection.execute("select pg_database_size(current_database()) / 1e6").fetchone()
    with Session(create_engine(_sqlalchemy(url))) as session:
        times = []
        for _ in range(20):
            started = time.perf_counter()
            list(DagRun.get_running_dag_runs_to_examine(session=session))
            list(DagRun.get_queued_dag_runs_to_set_running(session=session))
            session.execute(select(TaskInstance.id).where(TaskInstance.state == "scheduled").limit(16)).all()
            session.execute(select(func.max(DagRun.logical_date)).where(DagRun.dag_id == DAG)).all()
            times.append((time.perf_counter() - started) * 1000)
    return [("mb", float(row[0]) if row else 0.0), ("ms", statistics.median(times))]


def _sqlalchemy(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg2://", 1)
