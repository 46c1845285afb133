"""Airflow's REST API, as far as the commands of this package and the end-to-end tests need it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import tenacity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FINISHED = frozenset({"success", "failed"})

_PAGE = 100
"""Airflow's `[api] maximum_page_limit`."""


class AirflowApiError(Exception):
    """Airflow refused a call, or is broken; the text says why."""


class NotYetError(AirflowApiError):
    """What is waited for has not come about; the text says what is missing."""


def wait(condition: Callable[[], Any], *, seconds: float, every: float = 0.5) -> Any:
    """Call ``condition`` until it raises NotYetError or a connection error no more, and return its result.

    Args:
        condition: Raises NotYetError for as long as it is to be called again.
        seconds: For how long.
        every: Seconds between two calls.

    Raises:
        NotYetError: It has not come about; the last one.
        httpx.TransportError: The last one.
    """
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type((NotYetError, httpx.TransportError)),
        wait=tenacity.wait_fixed(every),
        stop=tenacity.stop_after_delay(seconds),
        reraise=True,
    )(condition)


@dataclass(frozen=True)
class AirflowApi:
    """A running Airflow that lets everybody in.

    Attributes:
        url: Of its API server.
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
        """What ``GET /api/v2/<path>`` lists, page by page.

        Args:
            path: Of the list.
            key: Under which a page has its entries.
        """
        total, seen = 1, 0
        while seen < total:
            page = self.get(path, limit=_PAGE, offset=seen)
            yield from page[key]
            total, seen = page["total_entries"], seen + _PAGE

    def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        response = httpx.request(method, f"{self.url}/api/v2/{path}", timeout=120, **arguments)
        if response.is_server_error and method == "GET":
            msg = f"{method} {path} answered {response.status_code}"
            raise NotYetError(msg)
        if response.is_error:
            msg = f"{method} {path} answered {response.status_code}: {response.text[:500]}"
            raise AirflowApiError(msg)
        answer: dict[str, Any] = response.json() if response.content else {}
        return answer

    def wait_until_loaded(self, dag_ids: set[str], check: Callable[[], None] = lambda: None) -> None:
        """Wait until every component is healthy and exactly ``dag_ids`` are loaded, without import errors.

        Args:
            dag_ids: What has to be there.
            check: Called now and then; may raise to end the wait.

        Raises:
            NotYetError: It took more than three minutes.
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

        wait(loaded, seconds=180)

    def start(self, dag_id: str, logical_date: datetime | None = None, **conf: Any) -> str:
        """Start a run by hand, and return its id.

        Args:
            dag_id: Whose.
            logical_date: The moment it is for; None for now.
            conf: Its params.
        """
        moment = (logical_date or datetime.now(UTC)).isoformat()
        return str(self.post(f"dags/{dag_id}/dagRuns", logical_date=moment, conf=conf)["dag_run_id"])

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """The newest runs of a DAG, the latest data interval first."""
        runs: list[dict[str, Any]] = self.get(f"dags/{dag_id}/dagRuns", limit=100, order_by="-run_after")["dag_runs"]
        return runs

    def wait_for_run(self, dag_id: str, run_id: str | None = None, *, seconds: float = 180) -> dict[str, Any]:
        """Wait until a run is over, and return it.

        Args:
            dag_id: Whose run.
            run_id: Which; None for the DAG's newest.
            seconds: For how long.

        Raises:
            NotYetError: It is not there or not over by then.
        """

        def over() -> dict[str, Any]:
            runs = [run for run in self.runs(dag_id) if run_id in {None, run["dag_run_id"]}]
            if not runs or runs[0]["state"] not in FINISHED:
                msg = f"{dag_id}: {runs[0]['state'] if runs else 'no run'} after {seconds:g} s"
                raise NotYetError(msg)
            return runs[0]

        run: dict[str, Any] = wait(over, seconds=seconds)
        return run

    def wait_for_backfill(self, dag_id: str, number: int, *, seconds: float = 180) -> list[dict[str, Any]]:
        """Wait until all runs of a DAG's backfills are over, and return them.

        Args:
            dag_id: Whose.
            number: How many there have to be.
            seconds: For how long.

        Raises:
            NotYetError: They are not there or not over by then.
        """

        def over() -> list[dict[str, Any]]:
            runs = [run for run in self.runs(dag_id) if run["run_type"] == "backfill"]
            finished = sum(run["state"] in FINISHED for run in runs)
            if finished < max(number, len(runs)):
                msg = f"{dag_id}: {finished} of {max(number, len(runs))} runs of backfills after {seconds:g} s"
                raise NotYetError(msg)
            return runs

        runs: list[dict[str, Any]] = wait(over, seconds=seconds)
        return runs

    def clear(self, dag_id: str, run_id: str) -> None:
        """Clear a whole run, as the UI does; it is queued then."""
        self.post(f"dags/{dag_id}/dagRuns/{run_id}/clear", dry_run=False, only_failed=False)

    def result(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> Any:
        """What a task, or one of a mapped task's instances, returned: its XCom."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        return self.get(path, deserialize="true", map_index=map_index)["value"]

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int, map_index: int = -1) -> str:
        """The log of one try of a task: a line an entry, and the class and text of each exception."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        lines = []
        for entry in self.get(path, map_index=map_index)["content"]:
            lines.append(f"{entry.get('timestamp', '')} {entry.get('level', '')} {entry['event']}".strip())
            lines += [f"  {error['exc_type']}: {error['exc_value']}" for error in entry.get("error_detail") or ()]
        return "\n".join(lines)
