"""Starting many n8n workflows from one run of ``kpi_dispatch``, on a real Airflow."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import psycopg
from rich.table import Table

from dev.n8n.app import Workflow
from dev.stack import Ports, Stack

if TYPE_CHECKING:
    from rich.console import Console

    from dev.postgres import Postgres

SIZES = (1, 20, 200, 1000)
QUICK_SIZES = (1, 20)

LONGEST_LIST = 120
"""``max_map_length`` of the stack: the larger sizes need several pages."""

SECONDS_AT_MOST = 1800


def run(server: Postgres, *, quick: bool, console: Console) -> None:  # noqa: ARG001 - the stack has its own
    """Run ``kpi_dispatch`` with a growing registry, and print seconds, and CPU of Airflow and the stand-ins.

    Args:
        server: Not used.
        quick: Few KPIs.
        console: Where the table goes.
    """
    table = Table("KPIs", "seconds", "CPU seconds", "CPU a KPI", "executions", title="kpi_dispatch, two cores")
    os.environ["AIRFLOW__CORE__MAX_MAP_LENGTH"] = str(LONGEST_LIST)
    stack = Stack(Path(tempfile.mkdtemp(prefix="aggregator-fan-out-")))
    try:
        stack.start(Ports.free(), durable=False, say=console.print)
        for dag in stack.airflow.get("dags", limit=100)["dags"]:
            stack.airflow.patch(f"dags/{dag['dag_id']}", is_paused=dag["dag_id"] != "kpi_dispatch")
        _measure(stack, 2)  # the first runs of a new Airflow are slower
        for size in QUICK_SIZES if quick else SIZES:
            seconds, cpu, executions = _measure(stack, size)
            table.add_row(f"{size:,}", f"{seconds:.1f}", f"{cpu:.1f}", f"{cpu / size:.2f}", f"{executions:,}")
            console.print(f"{size}: {seconds:.1f} s, {cpu:.1f} CPU s, {executions} executions")
    finally:
        stack.remove()
        shutil.rmtree(stack.home, ignore_errors=True)
    console.print(table)


def _measure(stack: Stack, size: int) -> tuple[float, float, int]:
    """Seconds of the run, CPU seconds of everything, and executions in n8n."""
    ids = [f"kpi-{number}" for number in range(size)]
    stack.n8n.reset()
    stack.n8n.register({id_: Workflow() for id_ in ids})
    entries = [
        {"id": id_, "name": id_, "type": "price", "active": True, "webhookUrl": stack.n8n.webhook(id_)} for id_ in ids
    ]
    variable: dict[str, Any] = {"key": "kpi-registry", "value": json.dumps({"kpis": entries})}
    stack.airflow.patch("variables/kpi-registry", **variable)
    with psycopg.connect(stack.products_url, autocommit=True) as connection:
        connection.execute("truncate kpi.jobs cascade")
    cpu, began = _cpu_seconds(stack), time.monotonic()
    moment = datetime.now(UTC).isoformat()
    run = stack.airflow.post("dags/kpi_dispatch/dagRuns", logical_date=moment)
    run = stack.airflow.wait_for_run("kpi_dispatch", run["dag_run_id"], seconds=SECONDS_AT_MOST)
    seconds = time.monotonic() - began
    if run["state"] != "success":
        msg = f"the run with {size} KPIs is {run['state']}"
        raise RuntimeError(msg)
    return seconds, _cpu_seconds(stack) - cpu, len(stack.n8n.executions())


def _cpu_seconds(stack: Stack) -> float:
    """Of the stack's processes, with their children that have ended; PostgreSQL is none of them."""
    total = 0.0
    for process in stack.supervisor.processes():
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total
