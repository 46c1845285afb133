"""Test data: registry entries, job records, and runs of ``kpi_dispatch`` without Airflow."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from aggregator.core.errors import AggregatorError
from aggregator.kpi import jobs
from aggregator.kpi.registry import Kpi
from aggregator.kpi.trace_id import trace_id_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

TRACE = "trace_20250814_120000_abc12345"
RUN: Any = {"dag_id": "kpi_dispatch", "run_id": "scheduled__2025-08-14", "environment": "development"}
NOON = datetime(2026, 11, 15, 12, tzinfo=UTC)
URL = "https://n8n.example.com/webhook/w"


def entry(id_: Any = "a", **more: Any) -> dict[str, Any]:
    """Return a registry entry as JSON."""
    return {"id": id_, "name": f"Name of {id_}", "type": "price", "active": True, "webhookUrl": URL, **more}


def kpi(id_: str, **more: Any) -> Kpi:
    """Return a parsed registry entry."""
    return Kpi(id=id_, name=id_, type="price", active=True, webhook_url=URL, **more)


def create(connection: psycopg.Connection[Any], *ids: str, trace_id: str = TRACE, **more: Any) -> None:
    """Create a job record with these KPIs."""
    jobs.create(connection, trace_id, [kpi(id_, **more) for id_ in ids], **{**RUN, "run_id": trace_id})


def first(connection: psycopg.Connection[Any], query: Any, parameters: Sequence[Any] | None = None) -> tuple[Any, ...]:
    """Return the first row of a query, which must have one."""
    row: tuple[Any, ...] | None = connection.execute(query, parameters).fetchone()
    assert row is not None
    return row


def send(
    connection: psycopg.Connection[Any], id_: str, outcome: Any = "triggered", owner: str = "me", trace_id: str = TRACE
) -> None:
    """Claim a KPI and record its outcome."""
    assert jobs.claim(connection, trace_id, id_, owner) is jobs.Claim.CLAIMED
    error = None if outcome == "triggered" else "no"
    assert jobs.record(connection, trace_id, id_, owner, outcome, error=error) == outcome


class Run:
    """A run of the DAG whose tasks a test executes one by one.

    Args:
        dag: The DAG.
        run_time: Logical date.
        started: Start of the first task. Default: the logical date.
        name: Prefix of the run id.
        params: Params of the run.
    """

    def __init__(
        self,
        dag: Any,
        run_time: datetime = NOON,
        *,
        started: datetime | None = None,
        name: str = "scheduled",
        **params: Any,
    ) -> None:
        self.dag = dag
        self.started = started or run_time
        self.params = {"resend": False, "kpis": [], **params}
        run_id = f"{name}__{run_time.isoformat()}"
        self.run = SimpleNamespace(dag_id=dag.dag_id, run_id=run_id, logical_date=run_time, run_after=run_time)
        self.xcoms: dict[tuple[str, str], Any] = {}
        self.clears = 0
        self.tries: Counter[str] = Counter()
        self.trace_id = trace_id_of(self.run)

    def context(self, task_id: str, try_number: int = 1, map_index: int = -1) -> Any:
        def push(key: str, value: Any) -> None:
            self.xcoms[task_id, key] = value

        instance = SimpleNamespace(
            dag_id=self.dag.dag_id,
            task_id=task_id,
            run_id=self.run.run_id,
            start_date=datetime.now(UTC),
            try_number=try_number,
            map_index=map_index,
            max_tries=2 + self.clears,
            xcom_push=push,
            xcom_pull=lambda task_ids, key="return_value": self.xcoms.get((task_ids, key)),
            get_task_breadcrumbs=lambda *_: [],
        )
        if task_id == "read_registry":
            instance.start_date = self.started
        task = self.dag.get_task(task_id)
        return {"ti": instance, "task": task, "dag": self.dag, "dag_run": self.run, "params": self.params}

    def execute(self, task_id: str) -> Any:
        result = self.dag.get_task(task_id).execute(self.context(task_id))
        self.xcoms[task_id, "return_value"] = result
        return result

    def plan(self) -> list[str]:
        """Read the registry and return the ids to send."""
        return [id_ for batch in self.execute("read_registry") for id_ in batch]

    def instances(self) -> list[Any]:
        """The mapped instances as Airflow creates them: the product of batches and indices."""
        mapped = self.dag.get_task("trigger_kpi")
        values = [self.xcoms[task_id, "return_value"] for task_id in ("read_registry", "send_kpis")]
        return [mapped.unmap({"batch": batch, "index": index}) for batch in values[0] for index in values[1]]

    def send(self, *kpi_ids: str) -> dict[str, Any]:
        """Send all KPIs, unless that was done, then execute the instances of these KPIs, or all, concurrently.

        Returns:
            The results or errors of the instances by KPI.
        """
        if ("send_kpis", "return_value") not in self.xcoms:
            self.execute("send_kpis")
        chosen = [pair for pair in enumerate(self.instances()) if not kpi_ids or pair[1].kpi_id in kpi_ids]

        def one(pair: tuple[int, Any]) -> Any:
            map_index, task = pair
            self.tries[task.kpi_id] += 1
            context = self.context("trigger_kpi", self.tries[task.kpi_id], map_index)
            try:
                return task.execute({**context, "task": task})
            except (AggregatorError, AirflowSkipException) as error:
                return error

        with ThreadPoolExecutor(8) as threads:
            return dict(zip([task.kpi_id for _, task in chosen], threads.map(one, chosen), strict=True))

    def finalize(self) -> dict[str, Any]:
        summary: dict[str, Any] = self.dag.get_task("settle_job").execute(self.context("settle_job"))
        return summary

    def clear(self) -> None:
        self.clears += 1
        self.xcoms.clear()
