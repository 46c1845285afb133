"""``kpi_dispatch``: when n8n receives the KPIs, and what a run costs on a real Airflow (decision 8)."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
from rich.table import Table

from aggregator.core.settings import KpiSettings
from dev.airflow_api import NotYetError, wait
from dev.bench import airflow_stack
from dev.n8n.app import Workflow

if TYPE_CHECKING:
    from rich.console import Console

    from dev.postgres import Postgres
    from dev.stack import Stack

DAG_ID = "kpi_dispatch"

SIZES = (2, 1, 20, 60, 200)
"""Numbers of KPIs. The first one warms up: the first runs of a new Airflow are slower."""

LARGEST = 1_000
"""Number of KPIs of the last run, which is not awaited: its task instances take minutes."""

MAX_MAP_LENGTH = 120
"""Airflow's ``max_map_length``. The larger sizes need several batches."""

QUICK_SIZES, QUICK_LARGEST, QUICK_MAX_MAP_LENGTH = (3,), 5, 2

RUN_TIMEOUT = 1800
"""Seconds."""


@dataclass(frozen=True)
class Cost:
    """Cost of a run.

    Attributes:
        seconds: From the start of the run to its end.
        cpu_seconds: CPU time of Airflow and the stand-ins, without PostgreSQL.
        named: Number of task instances that Airflow shows by the id of their KPI.
    """

    seconds: float
    cpu_seconds: float
    named: int


def run(server: Postgres, *, quick: bool, console: Console) -> None:  # noqa: ARG001 - the stack has its own
    """Run the DAG with registries of several sizes, check that n8n executed each KPI once, and print the cost.

    Args:
        server: Not used.
        quick: Measure few KPIs.
        console: Output for the tables.
    """
    arrivals = Table("KPIs", "way", "first", "last", title="Seconds from the start of the sender until n8n has a KPI")
    costs = Table("KPIs", "seconds", "CPU seconds", "CPU per KPI", "named", title=DAG_ID)
    configuration = {"AIRFLOW__CORE__MAX_MAP_LENGTH": str(QUICK_MAX_MAP_LENGTH if quick else MAX_MAP_LENGTH)}
    with airflow_stack.running({DAG_ID}, console, configuration) as stack:
        for size in [*(QUICK_SIZES if quick else SIZES), QUICK_LARGEST if quick else LARGEST]:
            ids = [f"kpi-{number}" for number in range(size)]
            with console.status(f"fan_out: {size:,} KPIs"):
                _prepare(stack, ids)
                began = time.time()
                asyncio.run(_send_plainly(stack, ids))
                arrivals.add_row(f"{size:,}", "httpx.AsyncClient", *_since(began, _executions(stack, ids)))
                _prepare(stack, ids)
                cpu, started = airflow_stack.cpu_seconds(stack), time.monotonic()
                run_id = stack.airflow.start(DAG_ID)
                executions = wait(partial(_executions, stack, ids), seconds=RUN_TIMEOUT)
                task = stack.airflow.get(f"dags/{DAG_ID}/dagRuns/{run_id}/taskInstances/send_kpis")
                began = datetime.fromisoformat(task["start_date"]).timestamp()
                arrivals.add_row(f"{size:,}", "send_kpis", *_since(began, executions))
                if size in {LARGEST, QUICK_LARGEST}:
                    break
                cost = _finish(stack, run_id, ids, cpu, started)
            costs.add_row(
                f"{size:,}",
                f"{cost.seconds:.1f}",
                f"{cost.cpu_seconds:.1f}",
                f"{cost.cpu_seconds / size:.2f}",
                f"{cost.named:,}",
            )
    console.print(arrivals, costs)


def _prepare(stack: Stack, ids: list[str]) -> None:
    stack.n8n.reset()
    stack.n8n.register({id_: Workflow() for id_ in ids})
    entries = [
        {"id": id_, "name": id_, "type": "price", "active": True, "webhookUrl": stack.n8n.webhook(id_)} for id_ in ids
    ]
    variable: dict[str, Any] = {"key": "kpi-registry", "value": json.dumps({"kpis": entries})}
    stack.airflow.patch("variables/kpi-registry", **variable)
    with psycopg.connect(stack.products_url, autocommit=True) as connection:
        connection.execute("truncate kpi.jobs cascade")


async def _send_plainly(stack: Stack, ids: list[str]) -> None:
    """What a script without job records, retries and address checks does."""
    key = json.loads(stack.environment()["AIRFLOW_CONN_N8N"])["password"]
    slots = asyncio.Semaphore(KpiSettings().kpi_requests_at_once)
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"}, trust_env=False) as client:

        async def send(id_: str) -> None:
            async with slots:
                response = await client.post(stack.n8n.webhook(id_), json={"kpiId": id_})
                response.raise_for_status()

        await asyncio.gather(*map(send, ids))


def _executions(stack: Stack, ids: list[str]) -> list[dict[str, Any]]:
    executions = stack.n8n.executions()
    if len(executions) < len(ids):
        raise NotYetError
    return executions


def _since(began: float, executions: list[dict[str, Any]]) -> tuple[str, str]:
    times = [execution["arrived_at"] - began for execution in executions]
    return f"{min(times):.2f}", f"{max(times):.2f}"


def _finish(stack: Stack, run_id: str, ids: list[str], cpu: float, started: float) -> Cost:
    state = stack.airflow.wait_for_run(DAG_ID, run_id, seconds=RUN_TIMEOUT)["state"]
    seconds, cpu = time.monotonic() - started, airflow_stack.cpu_seconds(stack) - cpu
    executions = Counter(execution["path"] for execution in stack.n8n.executions())
    if state != "success" or executions != Counter(ids):
        msg = f"The run with {len(ids)} KPIs ended as {state}, and n8n executed {executions.total()} workflows."
        raise RuntimeError(msg)
    path = f"dags/{DAG_ID}/dagRuns/{run_id}/taskInstances/trigger_kpi/listMapped"
    names = {instance["rendered_map_index"] for instance in stack.airflow.entries(path, "task_instances")}
    return Cost(seconds, cpu, len(names & {*ids}))
