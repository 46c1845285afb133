"""Starting many n8n workflows from one run of ``kpi_dispatch``, on a real Airflow, in two ways (ADR 8)."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from rich.table import Table

from dev.bench import airflow_stack, kpi_dispatch_from_trigger
from dev.n8n.app import Workflow
from dev.stack import REPOSITORY, bundles

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from dev.postgres import Postgres
    from dev.stack import Stack

SIZES = (2, 1, 20, 200)
"""Numbers of KPIs. The first one warms up: the first runs of a new Airflow are slower."""

LONGEST_LIST = 120
"""``max_map_length``: the largest size needs several pages."""

QUICK_SIZES, QUICK_LONGEST_LIST = (3,), 2

SECONDS_AT_MOST = 1800

WAYS = {"ordinary tasks": "kpi_dispatch", "from trigger": kpi_dispatch_from_trigger.DAG_ID}
"""Name of a way → its DAG."""


@dataclass(frozen=True)
class Cost:
    """What a run took.

    Attributes:
        seconds: From its start to its end.
        cpu_seconds: Of Airflow and the stand-ins, without PostgreSQL.
        named: Instances that Airflow shows by the id of their KPI.
    """

    seconds: float
    cpu_seconds: float
    named: int


def run(server: Postgres, *, quick: bool, console: Console) -> None:  # noqa: ARG001 - the stack has its own
    """Run both DAGs with a growing registry, check that each KPI was executed once, and print what it took.

    Args:
        server: Not used.
        quick: Few KPIs.
        console: Where the table goes.
    """
    if quick:
        measure(QUICK_SIZES, console, longest_list=QUICK_LONGEST_LIST)
    else:
        measure(SIZES, console, longest_list=LONGEST_LIST)


def measure(sizes: Sequence[int], console: Console, *, longest_list: int) -> None:
    """Measure both ways for registries of these sizes, as :func:`run` does.

    Args:
        sizes: Numbers of KPIs.
        console: Where the table goes.
        longest_list: ``max_map_length`` of the stack.
    """
    table = Table("KPIs", "way", "seconds", "CPU seconds", "CPU a KPI", "named", title="kpi_dispatch")
    with _stack(longest_list, console) as stack:
        for size in sizes:
            for way, dag_id in WAYS.items():
                cost = _cost(stack, dag_id, size)
                figures = (f"{cost.seconds:.1f}", f"{cost.cpu_seconds:.1f}", f"{cost.cpu_seconds / size:.2f}")
                table.add_row(f"{size:,}", way, *figures, f"{cost.named:,}")
                console.print(f"{size:,} KPIs, {way}: {figures[0]} s, {figures[1]} CPU s, {cost.named:,} named")
    console.print(table)


@contextmanager
def _stack(longest_list: int, console: Console) -> Iterator[Stack]:
    """A stack with both DAGs, in which nothing else runs."""
    with tempfile.TemporaryDirectory(prefix="aggregator-fan-out-") as folder:
        shutil.copy(kpi_dispatch_from_trigger.__file__, folder)
        configuration = {
            "AIRFLOW__CORE__MAX_MAP_LENGTH": str(longest_list),
            **bundles({"dags-folder": REPOSITORY / "dags", "fan-out": Path(folder)}),
        }
        with airflow_stack.running(WAYS.values(), console, configuration) as stack:
            yield stack


def _cost(stack: Stack, dag_id: str, size: int) -> Cost:
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
    cpu, began = airflow_stack.cpu_seconds(stack), time.monotonic()
    run_id = stack.airflow.start(dag_id)
    run = stack.airflow.wait_for_run(dag_id, run_id, seconds=SECONDS_AT_MOST)
    seconds, cpu = time.monotonic() - began, airflow_stack.cpu_seconds(stack) - cpu
    executions = Counter(execution["path"] for execution in stack.n8n.executions())
    if run["state"] != "success" or executions != Counter(ids):
        msg = f"the run with {size} KPIs is {run['state']}, and n8n executed {executions.total()}"
        raise RuntimeError(msg)
    return Cost(seconds, cpu, len({*_names(stack, dag_id, run_id)} & {*ids}))


def _names(stack: Stack, dag_id: str, run_id: str) -> Iterator[str]:
    """What the UI calls the mapped instances."""
    path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/trigger_kpi/listMapped"
    yield from (instance["rendered_map_index"] for instance in stack.airflow.entries(path, "task_instances"))
