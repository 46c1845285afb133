"""Runs tasks as a worker does: in processes that Airflow's supervisor forks, with a stand-in for the Execution API.

Shows what a task process costs and which modules it imports itself. ``python -m dev.task_process`` reads a request
from standard input and prints one line of JSON for each task; :func:`run` starts it.
"""

# Airflow is imported as late as in a worker: what is imported when depends on the program.
# ruff: noqa: PLC0415

from __future__ import annotations

import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import uuid
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import httpx

REPOSITORY = Path(__file__).parents[1]

PROGRAMS = {
    "scheduler": ["airflow", "scheduler"],
    "celery": ["airflow", "celery", "worker"],
    "unprepared": ["airflow", "tasks", "run"],
}
"""Commands of the processes that fork tasks: LocalExecutor, a Celery worker, and one that imports nothing before."""


@dataclass(frozen=True)
class Task:
    """A task instance to run.

    Attributes:
        dag_id: Its DAG, in a file of the same name.
        task_id: Its task.
        start: Start of the data interval, ISO 8601 in UTC.
        end: End of the data interval, ISO 8601 in UTC.
        map_index: Its index if the task is mapped; the list that it is mapped over must have this many elements.
    """

    dag_id: str
    task_id: str
    start: str
    end: str
    map_index: int = -1


@dataclass(frozen=True)
class Result:
    """What a task process did.

    Attributes:
        dag_id: DAG of the task.
        task_id: The task.
        state: ``success``, or another state of Airflow.
        cpu_seconds: CPU time of the process, user and system.
        imported: Modules that it imported itself.
        output: The end of its log, for errors.
    """

    dag_id: str
    task_id: str
    state: str
    cpu_seconds: float
    imported: list[str]
    output: str


@dataclass
class ExecutionApi:
    """A stand-in for the Execution API that answers for one task instance, and keeps the XComs of its run.

    Attributes:
        variables: Airflow Variables.
        task: The running task instance.
        xcoms: Results of the tasks that have run, by DAG, task and key.
        state: The state that the task instance reported last.
    """

    variables: Mapping[str, str]
    task: Task | None = None
    xcoms: dict[tuple[str, str, str], Any] = field(default_factory=dict)
    state: str = ""

    def respond(self, request: httpx.Request) -> httpx.Response:
        """Respond to a request of the supervisor."""
        import httpx

        content = self._content(request)
        missing = content is None and request.method in {"GET", "HEAD"}
        return httpx.Response(404 if missing else 200, json=content if content is not None else {"ok": not missing})

    def _content(self, request: httpx.Request) -> Any:
        method, parts = request.method, request.url.path.strip("/").split("/")
        match method, *parts:
            case "PATCH", "task-instances", _, "run":
                return self._context(cast("Task", self.task))
            case "PATCH", "task-instances", _, "state":
                self.state = json.loads(request.content)["state"]
            case "GET", "task-instances", "breadcrumbs":
                return {"breadcrumbs": []}
            case "GET", "variables", key if key in self.variables:
                return {"key": key, "value": self.variables[key]}
            case "POST", "xcoms", dag_id, _, task_id, key:
                self.xcoms[dag_id, task_id, key] = json.loads(request.content)
            case "GET", "xcoms", dag_id, _, task_id, key if (dag_id, task_id, key) in self.xcoms:
                return {"key": key, "value": self.xcoms[dag_id, task_id, key]}
            case "GET", "xcoms", dag_id, _, task_id, key, "slice":
                found = (dag_id, task_id, key) in self.xcoms
                return [self.xcoms[dag_id, task_id, key]] if found else []
            case _:
                pass
        return None

    def _context(self, task: Task) -> dict[str, Any]:
        now = datetime.fromisoformat(task.end) + timedelta(minutes=1)
        dag_run: dict[str, Any] = {
            "dag_id": task.dag_id,
            "run_id": "run",
            "logical_date": task.start,
            "data_interval_start": task.start,
            "data_interval_end": task.end,
            "run_after": now.isoformat(),
            "start_date": now.isoformat(),
            "end_date": None,
            "run_type": "scheduled",
            "state": "running",
            "consumed_asset_events": [],
            "partition_key": None,
        }
        return {"dag_run": dag_run, "max_tries": 0}


def run(
    program: str,
    tasks: Sequence[Task],
    *,
    dags: Path = REPOSITORY / "dags",
    environment: Mapping[str, str] | None = None,
    variables: Mapping[str, str] | None = None,
) -> list[Result]:
    """Run tasks one after the other, in processes that a new process forks.

    Args:
        program: One of :data:`PROGRAMS`.
        tasks: The tasks, upstream tasks first.
        dags: Folder of the DAG files.
        environment: Environment variables in addition to those of this process: connections.
        variables: Airflow Variables.

    Returns:
        One result per task, in the same order.

    Raises:
        RuntimeError: The process failed. The text is its output.
    """
    request = {"tasks": [asdict(task) for task in tasks], "dags": str(dags), "variables": {**(variables or {})}}
    with tempfile.TemporaryDirectory(prefix="aggregator-task-process-") as home:
        settings = {
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"),
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor" if program == "celery" else "LocalExecutor",
            "AIRFLOW__CORE__LAZY_LOAD_PLUGINS": str(program != "celery"),
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "plugins"), str(REPOSITORY)]),
        }
        done = subprocess.run(
            [sys.executable, "-m", "dev.task_process", *PROGRAMS[program]],
            env={**os.environ, **settings, **(environment or {})},
            input=json.dumps(request),
            capture_output=True,
            text=True,
            check=False,
            cwd=REPOSITORY,
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or len(lines) != len(tasks):
        msg = f"The process ended with exit code {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        raise RuntimeError(msg)
    return [Result(**json.loads(line)) for line in lines]


def main() -> None:
    """Become one of the programs, as far as its imports go, and run the requested tasks."""
    # Airflow, and the plugin, decide by the command what they load.
    sys.argv = sys.argv[1:]
    request = json.load(sys.stdin)
    if sys.argv[1] == "scheduler":
        from airflow.executors.local_executor import LocalExecutor  # noqa: F401
        from airflow.jobs.scheduler_job_runner import SchedulerJobRunner  # noqa: F401
        from airflow.listeners.listener import get_listener_manager

        get_listener_manager()
    elif sys.argv[1] == "celery":
        from airflow.providers.celery.executors import celery_executor_utils

        celery_executor_utils.on_celery_import_modules()
    api = ExecutionApi(request["variables"])
    with tempfile.TemporaryDirectory() as folder:
        imported = Path(folder) / "imported"
        gc.freeze()
        _note_imports(imported)
        for task in request["tasks"]:
            print(json.dumps(asdict(_supervise(Task(**task), api, Path(request["dags"]), imported))), flush=True)


def _supervise(task: Task, api: ExecutionApi, dags: Path, imported: Path) -> Result:
    """Run a task as ``BaseExecutor.run_workload`` does."""
    import httpx
    from airflow.executors.workloads import BundleInfo
    from airflow.executors.workloads.task import TaskInstanceDTO
    from airflow.sdk.api.client import Client
    from airflow.sdk.execution_time.supervisor import supervise_task

    os.environ["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"] = json.dumps(
        [
            {
                "name": "dags",
                "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
                "kwargs": {"path": str(dags)},
            }
        ]
    )
    api.task, api.state = task, "success"
    imported.unlink(missing_ok=True)
    log = imported.with_name("log")
    log.unlink(missing_ok=True)
    instance = TaskInstanceDTO(
        id=uuid.uuid4(),
        dag_version_id=uuid.uuid4(),
        task_id=task.task_id,
        dag_id=task.dag_id,
        run_id="run",
        try_number=1,
        map_index=task.map_index,
        pool_slots=1,
        queue="default",
        priority_weight=1,
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    client = Client(base_url="http://api", token="", transport=httpx.MockTransport(api.respond))
    exit_code = supervise_task(
        ti=instance,  # type: ignore[arg-type]  # as Airflow's executors do
        bundle_info=BundleInfo(name="dags"),
        dag_rel_path=f"{task.dag_id}.py",
        token="",
        client=client,
        log_path=str(log),
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    state = api.state if exit_code == 0 else f"exit code {exit_code}"
    output = log.read_text() if log.exists() else ""
    return Result(
        dag_id=task.dag_id,
        task_id=task.task_id,
        state=state,
        cpu_seconds=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        imported=imported.read_text().split() if imported.exists() else [],
        output=output[-3000:],
    )


def _note_imports(path: Path) -> None:
    """Make processes that this one forks write the names of the modules that they import to a file."""
    exit_process = os._exit

    def exit_with_note(modules: set[str], code: int) -> None:
        path.write_text("\n".join(sorted(set(sys.modules) - modules)))
        exit_process(code)

    def begin() -> None:
        os._exit = partial(exit_with_note, {*sys.modules})  # type: ignore[assignment]

    os.register_at_fork(after_in_child=begin)


if __name__ == "__main__":
    main()
