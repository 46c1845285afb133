"""Client of Airflow's REST API, for the commands of this package and the end-to-end tests."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import tenacity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FINISHED = frozenset({"success", "failed"})

_PATIENCE = 600
"""Time limit for Airflow to start on a busy machine, in seconds."""

_PAGE = 100
"""Airflow's `[api] maximum_page_limit`."""


class AirflowApiError(Exception):
    """Airflow refused a call or failed; the text says why."""


class NotYetError(AirflowApiError):
    """The expected state is not reached yet; the text says what is missing."""


def wait(condition: Callable[[], Any], *, seconds: float, every: float = 0.5) -> Any:
    """Call ``condition`` until it raises neither NotYetError nor a connection error, and return its result.

    Args:
        condition: Raises NotYetError while the expected state is not reached.
        seconds: Time limit.
        every: Seconds between two calls.

    Raises:
        NotYetError: The time limit is over; this is the last error.
        httpx.TransportError: Likewise.
    """
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type((NotYetError, httpx.TransportError)),
        wait=tenacity.wait_fixed(every),
        stop=tenacity.stop_after_delay(seconds),
        reraise=True,
    )(condition)


@dataclass(frozen=True)
class AirflowApi:
    """A running Airflow without authentication.

    Attributes:
        url: URL of its API server.
    """

    url: str

    def get(self, path: str, **parameters: Any) -> dict[str, Any]:
        """``GET /api/v2/<path>``."""
        return self._call("GET", path, params=parameters)

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        """``POST /api/v2/<path>`` with a JSON body."""
        return self._call("POST", path, json=body)

    def patch(self, path: str, **body: Any) -> dict[str, Any]:
        """``PATCH /api/v2/<path>`` with a JSON body."""
        return self._call("PATCH", path, json=body)

    def entries(self, path: str, key: str) -> Iterator[dict[str, Any]]:
        """Iterate over the entries of ``GET /api/v2/<path>``.

        Args:
            path: Path of the list.
            key: Key of the entries in a page.
        """
        total, seen = 1, 0
        while seen < total:
            page = self.get(path, limit=_PAGE, offset=seen)
            yield from page[key]
            total, seen = page["total_entries"], seen + _PAGE

    def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        response = httpx.request(method, f"{self.url}/api/v2/{path}", timeout=120, **arguments)
        if response.is_server_error and method == "GET":
            msg = f"{method} {path} returned {response.status_code}"
            raise NotYetError(msg)
        if response.is_error:
            msg = f"{method} {path} returned {response.status_code}: {response.text[:500]}"
            raise AirflowApiError(msg)
        body: dict[str, Any] = response.json() if response.content else {}
        return body

    def wait_until_up(self, check: Callable[[], None]) -> None:
        """Wait until the API server responds.

        Args:
            check: Called before each request. It may raise an error to end the wait.

        Raises:
            httpx.TransportError: The API server does not listen after ten minutes.
            NotYetError: The API server fails after ten minutes.
        """

        def up() -> None:
            check()
            self.get("monitor/health")

        wait(up, seconds=_PATIENCE)

    def wait_until_loaded(self, dag_ids: set[str], check: Callable[[], None] = lambda: None) -> None:
        """Wait until every component is healthy and ``dag_ids`` are loaded without import errors.

        Args:
            dag_ids: DAGs to wait for.
            check: Called before each request. It may raise an error to end the wait.

        Raises:
            NotYetError: A component or a DAG is missing after ten minutes.
            AirflowApiError: A DAG file cannot be imported.
        """

        def loaded() -> None:
            check()
            health = self.get("monitor/health")
            sick = [name for name, state in health.items() if state["status"] != "healthy"]
            if sick:
                msg = f"not healthy yet: {', '.join(sick)}"
                raise NotYetError(msg)
            if errors := self.get("importErrors")["import_errors"]:
                msg = f"{errors[0]['filename']} cannot be imported:\n{errors[0]['stack_trace']}"
                raise AirflowApiError(msg)
            missing = dag_ids - {dag["dag_id"] for dag in self.get("dags", limit=100)["dags"]}
            if missing:
                msg = f"not loaded yet: {', '.join(sorted(missing))}"
                raise NotYetError(msg)

        wait(loaded, seconds=_PATIENCE)

    def start(self, dag_id: str, logical_date: datetime | None = None, **conf: Any) -> str:
        """Start a manual run and return its ID.

        Args:
            dag_id: The DAG.
            logical_date: Logical date of the run; None for the current time.
            conf: Params of the run.
        """
        date = (logical_date or datetime.now(UTC)).isoformat()
        return str(self.post(f"dags/{dag_id}/dagRuns", logical_date=date, conf=conf)["dag_run_id"])

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """Return the newest runs of a DAG, the latest data interval first."""
        runs: list[dict[str, Any]] = self.get(f"dags/{dag_id}/dagRuns", limit=100, order_by="-run_after")["dag_runs"]
        return runs

    def wait_for_run(self, dag_id: str, run_id: str | None = None, *, seconds: float = 180) -> dict[str, Any]:
        """Wait until a run has finished, and return it.

        Args:
            dag_id: The DAG.
            run_id: The run; None for the newest run of the DAG.
            seconds: Time limit.

        Raises:
            NotYetError: The run does not exist or has not finished in time.
        """

        def finished() -> dict[str, Any]:
            runs = [run for run in self.runs(dag_id) if run_id in {None, run["dag_run_id"]}]
            if not runs or runs[0]["state"] not in FINISHED:
                msg = f"{dag_id}: {runs[0]['state'] if runs else 'no run'} after {seconds:g} s"
                raise NotYetError(msg)
            return runs[0]

        run: dict[str, Any] = wait(finished, seconds=seconds)
        return run

    def wait_for_backfill(self, dag_id: str, number: int, *, seconds: float = 180) -> list[dict[str, Any]]:
        """Wait until all runs of a DAG's backfills have finished, and return them.

        Args:
            dag_id: The DAG.
            number: Expected number of runs.
            seconds: Time limit.

        Raises:
            NotYetError: The runs do not exist or have not finished in time.
        """

        def finished() -> list[dict[str, Any]]:
            runs = [run for run in self.runs(dag_id) if run["run_type"] == "backfill"]
            count = sum(run["state"] in FINISHED for run in runs)
            if count < max(number, len(runs)):
                msg = f"{dag_id}: {count} of {max(number, len(runs))} runs of backfills after {seconds:g} s"
                raise NotYetError(msg)
            return runs

        runs: list[dict[str, Any]] = wait(finished, seconds=seconds)
        return runs

    def clear(self, dag_id: str, run_id: str) -> None:
        """Clear a whole run, as the UI does."""
        self.post(f"dags/{dag_id}/dagRuns/{run_id}/clear", dry_run=False, only_failed=False)

    def result(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, *, key: str = "return_value") -> Any:
        """Return the result of a task instance, or another of its XComs."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.get(path, deserialize="true", map_index=map_index)["value"]

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int, map_index: int = -1) -> str:
        """Return the log of one try: one line per entry, then the class and text of each exception."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        lines = []
        for entry in self.get(path, map_index=map_index)["content"]:
            lines.append(f"{entry.get('timestamp', '')} {entry.get('level', '')} {entry['event']}".strip())
            lines += [f"  {error['exc_type']}: {error['exc_value']}" for error in entry.get("error_detail") or ()]
        return "\n".join(lines)
