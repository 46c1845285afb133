"""Proof of ``make scale-out``: two Celery workers, one of which is killed, write the same rows as a single machine.

Two stacks with the same sample data process the same day, one after the other. The first stack executes its tasks
itself. The second has two Celery workers; one is killed (``kill -9``, with its child processes) while it executes a
task. Afterwards, every table that the runs wrote must have the same rows in both stacks.
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

MAX_RUNS = 12
"""Maximum number of runs of one DAG: the last ones of the day."""

HELD_DAG, HELD_TABLE = "click_rollups", "public.click_rollups"
"""DAG whose task waits for a lock on its table, so that the killed worker has a running task."""

SEQUENTIAL = "ohlcv_aggregation"
"""DAG whose runs skip the work of other active runs: in parallel, the last run could leave some of it undone."""

SHIPPED = (
    "AIRFLOW__CELERY__WORKER_CONCURRENCY",
    "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT",
)
"""Settings of docker-compose.yaml that decide how workers run and how the loss of one is handled."""

NO_SCHEDULE = {"AGGREGATOR_START_DATE": "2100-01-01"}
"""Prevents scheduled runs, except those of ``kpi_dispatch`` at noon."""

SHARDED = {"OHLCV_SYMBOLS_PER_SHARD": "1"}
"""Makes the few symbols of the sample enough for several task instances of one run, which the workers share."""

NOT_COMPARED = r"(^|_)(at|owner)$|^(total_runs|last_error)$"
"""Columns that depend on time, owner or number of attempts."""

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
    """Outcome of one stack.

    Attributes:
        seconds: From the start of the first run to the end of the last one.
        runs: Number of runs.
        written: Table that the runs changed → number and digest of its rows.
        lost: Tasks that the killed worker was executing.
        retried: Tasks that took more than one attempt.
        recovery_seconds: From the kill until all lost tasks were retried.
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
        home: Folder of the two stacks; they are removed.
        say: Prints each step before it starts.

    Returns:
        The outcome of the single machine, and that of the workers.

    Raises:
        StackError: A run failed, or the UTC day ended meanwhile.
    """
    day = whole_day(datetime.now(UTC))
    single = _process(Stack(home / "single", configuration=NO_SCHEDULE), day, say)
    configuration = {**NO_SCHEDULE, **SHARDED, **shipped()}
    scaled = _process(Stack(home / "workers", workers=WORKERS, configuration=configuration), day, say)
    if whole_day(datetime.now(UTC)) != day:
        msg = "The UTC day ended meanwhile, so the stacks had different sample data. Run the command again."
        raise StackError(msg)
    return single, scaled


def whole_day(now: datetime) -> date:
    """Return the latest UTC day all of whose runs are due at any hour. A run that is not due would stay queued."""
    return (now - timedelta(days=2)).date()


def report(single: Outcome, scaled: Outcome, console: Console) -> int:
    """Print a comparison of the outcomes.

    Args:
        single: Outcome of the single machine.
        scaled: Outcome of the workers.
        console: Output.

    Returns:
        The exit code: 0 if both wrote the same rows and a lost task was retried, else 1.
    """
    different = differences(single.written, scaled.written)
    table = Table("written by the runs", "rows", "workers and single machine")
    for name, (rows, _) in sorted(scaled.written.items()):
        table.add_row(name, str(rows), "[red]different[/]" if name in different else "equal")
    console.print(table)
    console.print(
        f"{single.runs} runs: {single.seconds:.0f} s on one machine, {scaled.seconds:.0f} s on {WORKERS} workers.\n"
        f"One worker was killed. All of its tasks were retried within {scaled.recovery_seconds:.0f} s.\n"
        f"Its tasks: {', '.join(scaled.lost)}\nTasks with more than one attempt: {', '.join(scaled.retried)}"
    )
    if different:
        console.print(f"[red]Tables that differ: {', '.join(different)}[/]")
    return 1 if different or not scaled.written or not scaled.lost else 0


def differences(one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    """Return the keys whose values differ, or that only one of the mappings has."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def shipped() -> dict[str, str]:
    """Return the settings of docker-compose.yaml to which the proof applies."""
    environment = yaml.safe_load((REPOSITORY / "docker-compose.yaml").read_text())["x-airflow-common"]["environment"]
    return {name: environment[name] for name in SHIPPED}


def digests(connection: psycopg.Connection) -> dict[str, tuple[int, str]]:
    """Hash the rows of each table, without the columns that differ between executions.

    Args:
        connection: Connection to the products' database.

    Returns:
        Table → number and digest of its rows.
    """
    found = {}
    for schema, table, columns in connection.execute(_COLUMNS, [NOT_COMPARED]).fetchall():
        query = sql.SQL("select count(*), md5(string_agg(r::text, ';' order by r::text)) from (select {} from {}) as r")
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        (found[f"{schema}.{table}"],) = connection.execute(query.format(names, sql.Identifier(schema, table)))
    return found


def _process(stack: Stack, day: date, say: Callable[[str], object]) -> Outcome:
    stack.remove()  # files of a killed process
    try:
        stack.start(Ports.free(), durable=False, say=say)
        with psycopg.connect(stack.products_url, autocommit=True) as products:
            before = digests(products)
            say(f"Running {len(dag_ids())} DAGs for {day} on {len(stack.workers) or 'no'} workers")
            started = time.monotonic()
            killed_at, lost = datetime.now(UTC), set[str]()
            with products.transaction():
                if stack.workers:
                    products.execute(sql.SQL("lock table {} in share mode").format(sql.SQL(HELD_TABLE)))
                runs = sum(_backfill(stack, dag_id, day) for dag_id in sorted(dag_ids()))
                if stack.workers:
                    killed_at, lost = _kill_worker(stack, runs // 2, say)
            wait(lambda: _refuse_unfinished(stack, runs), seconds=1800, every=2)
            seconds = time.monotonic() - started
            after = digests(products)
        retried = {_name(task): task for task in _tasks(stack) if task["try_number"] > 1}
        retried_at = [datetime.fromisoformat(retried[name]["start_date"]) for name in lost if name in retried]
        return Outcome(
            seconds=seconds,
            runs=runs,
            written={name: after[name] for name in differences(before, after)},
            lost=sorted(lost),
            retried=sorted(retried),
            recovery_seconds=(max(retried_at, default=killed_at) - killed_at).total_seconds(),
        )
    finally:
        stack.remove()


def _backfill(stack: Stack, dag_id: str, day: date) -> int:
    """Start the runs of a DAG for a day, or for the first month of the sample if the day has none; count them."""
    for first in (day, activity_since(datetime.now(UTC).date())):
        window = {"dag_id": dag_id, "from_date": f"{first}T00:00:00Z", "to_date": f"{first}T23:59:59Z"}
        dates = [run["logical_date"] for run in stack.airflow.post("backfills/dry_run", **window)["backfills"]]
        if dates:
            break
    dates = sorted(dates)[-MAX_RUNS:]
    dag = stack.airflow.get(f"dags/{dag_id}/details")
    # Webhooks of past days are sent only with this param.
    conf = {"resend": True} if "resend" in dag["params"] else {}
    window["from_date"] = dates[0]
    max_active_runs = 1 if dag_id == SEQUENTIAL else dag["max_active_runs"]
    stack.airflow.post("backfills", **window, max_active_runs=max_active_runs, dag_run_conf=conf)
    return len(dates)


def _kill_worker(stack: Stack, finished_runs: int, say: Callable[[str], object]) -> tuple[datetime, set[str]]:
    """Kill the worker of the held task once enough runs have finished; return the time, and the tasks of the worker."""

    def holder() -> str:
        if sum(run["state"] in FINISHED for run in _runs(stack)) < finished_runs:
            msg = f"fewer than {finished_runs} runs have finished"
            raise NotYetError(msg)
        pids = {task["pid"] for task in _tasks(stack) if task["dag_id"] == HELD_DAG and task["state"] == "running"}
        for worker in stack.workers:
            if pids & {process.pid for process in stack.supervisor.processes_of(worker)}:
                return worker
        msg = f"no worker is executing the task of {HELD_DAG}"
        raise NotYetError(msg)

    worker: str = wait(holder, seconds=900)
    say(f"Killing {worker}, which is executing the task of {HELD_DAG}; waiting for the other worker to finish all runs")
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
        msg = f"{finished} of {runs} runs have finished"
        raise NotYetError(msg)


def _runs(stack: Stack) -> list[dict[str, Any]]:
    return [run for dag_id in dag_ids() for run in stack.airflow.runs(dag_id) if run["run_type"] == "backfill"]


def _tasks(stack: Stack) -> Iterator[dict[str, Any]]:
    for dag_id in sorted(dag_ids()):
        yield from stack.airflow.entries(f"dags/{dag_id}/dagRuns/~/taskInstances", "task_instances")


def _name(task: Mapping[str, Any]) -> str:
    return f"{task['dag_id']}.{task['task_id']} ({task['dag_run_id']}, {task['map_index']})"
