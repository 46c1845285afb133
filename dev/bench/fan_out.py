"""``kpi_dispatch``: what a run costs on a real Airflow, by the number of KPIs (decision 8)."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from rich.table import Table

from dev.bench import airflow_stack
from dev.n8n.app import Workflow

if TYPE_CHECKING:
    from rich.console import Console

    from dev.postgres import Postgres
    from dev.stack import Stack

DAG_ID = "kpi_dispatch"

SIZES = (2, 1, 20, 200)
"""Numbers of KPIs. The first one warms up: the first runs of a new Airflow are slower."""

MAX_MAP_LENGTH = 120
"""Airflow's ``max_map_length``. The largest size needs two batches."""

QUICK_SIZES, QUICK_MAX_MAP_LENGTH = (3,), 2

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
        console: Output for the table.
    """
    max_map_length = QUICK_MAX_MAP_LENGTH if quick else MAX_MAP_LENGTH
    table = Table("KPIs", "seconds", "CPU seconds", "CPU per KPI", "named", title=DAG_ID)
    configuration = {"AIRFLOW__CORE__MAX_MAP_LENGTH": str(max_map_length)}
    with airflow_stack.running({DAG_ID}, console, configuration) as stack:
        for size in QUICK_SIZES if quick else SIZES:
            with console.status(f"fan_out: {size:,} KPIs"):
                cost = _measure(stack, size)
            table.add_row(
                f"{size:,}",
                f"{cost.seconds:.1f}",
                f"{cost.cpu_seconds:.1f}",
                f"{cost.cpu_seconds / size:.2f}",
                f"{cost.named:,}",
            )
    console.print(table)


def _measure(stack: Stack, size: int) -> Cost:
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
    cpu, started = airflow_stack.cpu_seconds(stack), time.monotonic()
    run_id = stack.airflow.start(DAG_ID)
    state = stack.airflow.wait_for_run(DAG_ID, run_id, seconds=RUN_TIMEOUT)["state"]
    seconds, cpu = time.monotonic() - started, airflow_stack.cpu_seconds(stack) - cpu
    executions = Counter(execution["path"] for execution in stack.n8n.executions())
    if state != "success" or executions != Counter(ids):
        msg = f"The run with {size} KPIs ended as {state}, and n8n executed {executions.total()} workflows."
        raise RuntimeError(msg)
    path = f"dags/{DAG_ID}/dagRuns/{run_id}/taskInstances/trigger_kpi/listMapped"
    names = {instance["rendered_map_index"] for instance in stack.airflow.entries(path, "task_instances")}
    return Cost(seconds, cpu, len(names & {*ids}))
