"""What `make scale-out` proves: Celery workers, one of them killed, write what a single machine writes.

Two stacks on the same sample data process the same day, one after the other. The first runs its tasks itself; the
second gives them to two Celery workers, one of which is killed (``kill -9``, with all that it has started) while it
holds a task. After that, every table that the runs wrote has to have the same rows.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psutil
import psycopg
import yaml
from psycopg import sql
from rich.table import Table

from dev.airflow_api import FINISHED, NotYetError, wait
from dev.sample.load import activity_since
from dev.stack import REPOSITORY, Ports, Stack, StackError, dag_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import date
    from pathlib import Path

    from rich.console import Console

WORKERS = 2

MOST_RUNS = 12
"""Runs of one DAG: the day's last ones, of those that fire more often."""

HELD_DAG, HELD_TABLE = "click_rollups", "public.click_rollups"
"""A DAG whose task waits for a lock on its table: the worker that is killed surely has a task."""

IN_TURN = "ohlcv_aggregation"
"""A DAG whose runs leave what another one is at work on to the next one: side by side, the last one would have none."""

SHIPPED = (
    "AIRFLOW__CELERY__WORKER_CONCURRENCY",
    "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT",
)
"""Of docker-compose.yaml, what decides how workers work and how the death of one is dealt with."""

NO_SCHEDULE = {"AGGREGATOR_START_DATE": "2999-01-01"}
"""Nothing runs but what is asked for."""

NOT_COMPARED = r"(^|_)(at|owner)$|^(total_runs|last_error)$"
"""Columns that say when, by whom and in how many tries something was done."""

_COLUMNS = """
select table_schema, table_name, array_agg(column_name::text order by ordinal_position)
from information_schema.columns
join information_schema.tables using (table_schema, table_name)
where table_type = 'BASE TABLE' and table_schema !~ '^(pg_|information_schema$|migrations$|ops$)'
    and column_name !~ %s and is_identity = 'NO'
group by table_schema, table_name
"""


@dataclass(frozen=True)
class Outcome:
    """What one stack did.

    Attributes:
        seconds: From the first run's start to the end of the last one.
        runs: How many there were.
        written: Table → number and digest of its rows, of those that the runs changed.
        lost: The tasks that the killed worker had.
        retried: The tasks that took more than one try.
        recovery_seconds: From the worker's death to the next try of the last of the tasks it had.
    """

    seconds: float
    runs: int
    written: dict[str, tuple[int, str]]
    lost: list[str]
    retried: list[str]
    recovery_seconds: float


def run(home: Path, say: Callable[[str], object]) -> tuple[Outcome, Outcome]:
    """Process the day before yesterday on a single machine, and then on workers.

    Args:
        home: Folder of the two stacks, which are removed.
        say: Is told each step before it begins.

    Returns:
        What the single machine did, and what the workers did.

    Raises:
        StackError: A run failed, or the UTC day ended meanwhile.
    """
    day = whole_day(datetime.now(UTC))
    single = _process(Stack(home / "single", configuration=NO_SCHEDULE), day, say)
    scaled = _process(Stack(home / "workers", workers=WORKERS, configuration={**NO_SCHEDULE, **shipped()}), day, say)
    if whole_day(datetime.now(UTC)) != day:
        msg = "The UTC day ended meanwhile, so the two had different sample data. Run it again."
        raise StackError(msg)
    return single, scaled


def whole_day(now: datetime) -> date:
    """The latest UTC day of which every run is due, whatever the hour: one that is not due yet would only be queued."""
    return (now - timedelta(days=2)).date()


def report(single: Outcome, scaled: Outcome, console: Console) -> int:
    """Print how the two compare.

    Returns:
        0 if both wrote the same, else 1.
    """
    different = differences(single.written, scaled.written)
    table = Table("written by the runs", "rows", "workers beside the single machine")
    for name, (rows, _) in sorted(scaled.written.items()):
        table.add_row(name, str(rows), "[red]different[/]" if name in different else "equal")
    console.print(table)
    console.print(
        f"{single.runs} runs: {single.seconds:.0f} s on one machine, {scaled.seconds:.0f} s on {WORKERS} workers.\n"
        f"One worker was killed; all that it had was being tried again {scaled.recovery_seconds:.0f} s later.\n"
        f"It had: {', '.join(scaled.lost)}\nTried more than once: {', '.join(scaled.retried)}"
    )
    if different:
        console.print(f"[red]Not the same: {', '.join(different)}[/]")
    return 1 if different or not scaled.written or not scaled.lost else 0


def differences(one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    """The names of what only one of two has, or both have differently."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def shipped() -> dict[str, str]:
    """The values of docker-compose.yaml that the proof is for."""
    environment = yaml.safe_load((REPOSITORY / "docker-compose.yaml").read_text())["x-airflow-common"]["environment"]
    return {name: environment[name] for name in SHIPPED}


def digests(connection: psycopg.Connection) -> dict[str, tuple[int, str]]:
    """Table → number and digest of its rows, without the columns that no two executions have in common.

    Args:
        connection: To the products' database.
    """
    found = {}
    for schema, table, columns in connection.execute(_COLUMNS, [NOT_COMPARED]).fetchall():
        query = sql.SQL("select count(*), md5(string_agg(r::text, ';' order by r::text)) from (select {} from {}) as r")
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        (found[f"{schema}.{table}"],) = connection.execute(query.format(names, sql.Identifier(schema, table)))
    return found


def _process(stack: Stack, day: date, say: Callable[[str], object]) -> Outcome:
    stack.remove()  # what one that was killed has left
    try:
        stack.start(Ports.free(), durable=False, say=say)
        with psycopg.connect(stack.products_url, autocommit=True) as products:
            before = digests(products)
            say(f"Running {day} of {len(dag_ids())} DAGs on {len(stack.workers) or 'no'} workers")
            began = time.monotonic()
            killed_at, lost = datetime.now(UTC), set[str]()
            with products.transaction():
                if stack.workers:
                    products.execute(sql.SQL("lock table {} in share mode").format(sql.SQL(HELD_TABLE)))
                runs = sum(_backfill(stack, dag_id, day) for dag_id in sorted(dag_ids()))
                if stack.workers:
                    killed_at, lost = _kill_worker(stack, runs // 2, say)
            wait(lambda: _refuse_unfinished(stack, runs), seconds=1800, every=2)
            seconds = time.monotonic() - began
            after = digests(products)
        retried = {_name(task): task for task in _tasks(stack) if task["try_number"] > 1}
        back = [datetime.fromisoformat(retried[name]["start_date"]) for name in lost if name in retried]
        return Outcome(
            seconds=seconds,
            runs=runs,
            written={name: after[name] for name in differences(before, after)},
            lost=sorted(lost),
            retried=sorted(retried),
            recovery_seconds=(max(back, default=killed_at) - killed_at).total_seconds(),
        )
    finally:
        stack.remove()


def _backfill(stack: Stack, dag_id: str, day: date) -> int:
    """Start a DAG's runs of a day, or of the sample's first month if none begins on that day; return their number."""
    for first in (day, activity_since(datetime.now(UTC).date())):
        window = {"dag_id": dag_id, "from_date": f"{first}T00:00:00Z", "to_date": f"{first}T23:59:59Z"}
        dates = [run["logical_date"] for run in stack.airflow.post("backfills/dry_run", **window)["backfills"]]
        if dates:
            break
    dates = sorted(dates)[-MOST_RUNS:]
    dag = stack.airflow.get(f"dags/{dag_id}/details")
    # Webhooks of a day that is over are sent to those only who ask for it.
    conf = {"resend": True} if "resend" in dag["params"] else {}
    window["from_date"] = dates[0]
    at_once = 1 if dag_id == IN_TURN else dag["max_active_runs"]
    stack.airflow.post("backfills", **window, max_active_runs=at_once, dag_run_conf=conf)
    return len(dates)


def _kill_worker(stack: Stack, finished_runs: int, say: Callable[[str], object]) -> tuple[datetime, set[str]]:
    """Kill the worker that has the held task, as soon as so many runs are over; return when, and what it had."""

    def holder() -> str:
        if sum(run["state"] in FINISHED for run in _runs(stack)) < finished_runs:
            msg = f"less than {finished_runs} runs are over"
            raise NotYetError(msg)
        pids = {task["pid"] for task in _tasks(stack) if task["dag_id"] == HELD_DAG and task["state"] == "running"}
        for worker in stack.workers:
            if pids & {process.pid for process in stack.supervisor.processes_of(worker)}:
                return worker
        msg = f"no worker has the task of {HELD_DAG}"
        raise NotYetError(msg)

    worker: str = wait(holder, seconds=900)
    say(f"Killing {worker}, which has that task; waiting for the other one to do all that is left")
    processes = stack.supervisor.processes_of(worker)
    for process in processes:
        process.kill()
    psutil.wait_procs(processes)
    pids = {process.pid for process in processes}
    lost = {_name(task) for task in _tasks(stack) if task["state"] == "running" and task["pid"] in pids}
    return datetime.now(UTC), lost


def _refuse_unfinished(stack: Stack, runs: int) -> None:
    states = [run["state"] for run in _runs(stack)]
    if states.count("failed"):
        failed = sorted({run["dag_id"] for run in _runs(stack) if run["state"] == "failed"})
        msg = f"Runs of {', '.join(failed)} failed. Their logs were in {stack.home / 'airflow' / 'logs'}"
        raise StackError(msg)
    if (finished := states.count("success")) < runs:
        msg = f"{finished} of {runs} runs are over"
        raise NotYetError(msg)


def _runs(stack: Stack) -> list[dict[str, Any]]:
    return [run for dag_id in dag_ids() for run in stack.airflow.runs(dag_id) if run["run_type"] == "backfill"]


def _tasks(stack: Stack) -> Iterator[dict[str, Any]]:
    for dag_id in sorted(dag_ids()):
        yield from stack.airflow.entries(f"dags/{dag_id}/dagRuns/~/taskInstances", "task_instances")


def _name(task: Mapping[str, Any]) -> str:
    return f"{task['dag_id']}.{task['task_id']} ({task['dag_run_id']}, {task['map_index']})"
