"""A local stack for measuring runs of a DAG, in which nothing else runs."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from dev.stack import Ports, Stack

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from rich.console import Console


@contextmanager
def running(
    dag_ids: Collection[str], console: Console, configuration: Mapping[str, str] | None = None
) -> Iterator[Stack]:
    """Start a temporary stack in which all DAGs except the given ones are paused.

    Args:
        dag_ids: DAGs that run.
        console: Output for messages.
        configuration: Additional environment variables of Airflow.

    Yields:
        The stack.
    """
    stack = Stack(Path(tempfile.mkdtemp(prefix="aggregator-bench-airflow-")), configuration=configuration)
    try:
        stack.start(Ports.free(), durable=False, say=console.print)
        stack.airflow.wait_until_loaded({*dag_ids})
        for dag in stack.airflow.get("dags", limit=100)["dags"]:
            stack.airflow.patch(f"dags/{dag['dag_id']}", is_paused=dag["dag_id"] not in dag_ids)
        yield stack
    finally:
        stack.remove()


def cpu_seconds(stack: Stack) -> float:
    """CPU time of the stack's processes and of their children that have ended, without PostgreSQL."""
    total = 0.0
    for process in stack.supervisor.processes():
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total
