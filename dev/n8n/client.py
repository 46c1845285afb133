"""Start the stand-in, register workflows, and tell it to fail."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import tenacity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dev.analytics_engine.faults import Fault
    from dev.n8n.app import Workflow

_REPOSITORY = Path(__file__).parents[2]
_STOP_SECONDS = 15

KEY = "N8N_STAND_IN_KEY"
"""Environment variable with the key that protected webhooks ask for; without it they take any."""

REPORT_SECRET = "N8N_STAND_IN_REPORT_SECRET"  # noqa: S105 - the name of a variable
"""Environment variable with the bearer of the reports."""


@dataclass(frozen=True)
class N8nControl:
    """The control side of a running stand-in.

    Attributes:
        url: Its address, such as ``http://127.0.0.1:5678``.
    """

    url: str

    def wait_until_ready(self, seconds: float = 60) -> None:
        """Wait until it answers.

        Args:
            seconds: How long at most.

        Raises:
            httpx.TransportError: It did not answer in time.
        """
        tenacity.Retrying(
            stop=tenacity.stop_after_delay(seconds),
            wait=tenacity.wait_fixed(0.05),
            retry=tenacity.retry_if_exception_type(httpx.TransportError),
            reraise=True,
        )(self._call, "GET", "/healthz")

    def webhook(self, path: str) -> str:
        """URL of the webhook with this path."""
        return f"{self.url}/webhook/{path}"

    def register(self, workflows: Mapping[str, Workflow]) -> None:
        """Add workflows by their webhooks' paths, or replace them."""
        self._call("PUT", "/__control__/workflows", json={p: w.model_dump() for p, w in workflows.items()})

    def faults(self, faults: Mapping[str, Sequence[Fault]]) -> None:
        """Meet the next calls of each path with these, in order; what still waited there is forgotten.

        One with a status answers instead of n8n, and nothing is executed; one without executes, and answers late or is
        cut.
        """
        self._call("PUT", "/__control__/faults", json={p: [f.model_dump() for f in fs] for p, fs in faults.items()})

    def executions(self, path: str | None = None) -> list[dict[str, Any]]:
        """What was executed, oldest first: ``id``, ``path``, ``idempotency_key`` and ``body``.

        Args:
            path: Of one webhook only.
        """
        executions = self._call("GET", "/__control__/executions").json()
        return [execution for execution in executions if path in {None, execution["path"]}]

    def requests(self, path: str | None = None) -> list[dict[str, Any]]:
        """What was sent, executed or not, oldest first: ``path``, ``headers`` and ``body``.

        Args:
            path: To one webhook only.
        """
        requests = self._call("GET", "/__control__/requests").json()
        return [request for request in requests if path in {None, request["path"]}]

    def reset(self) -> None:
        """Forget everything: workflows, faults, requests and executions."""
        self._call("DELETE", "/__control__")

    def _call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        return httpx.request(method, f"{self.url}{path}", timeout=60, trust_env=False, **arguments).raise_for_status()


@contextmanager
def running(*, key: str | None = None, reports_to: str | None = None) -> Iterator[N8nControl]:
    """Run a stand-in in a process of its own, in the `with` block.

    Args:
        key: What protected webhooks ask for; None takes anything.
        reports_to: URL below which ``/{traceId}/{kpiId}`` takes reports; None for nowhere.

    Yields:
        Its control side, ready.

    Raises:
        RuntimeError: It ended instead of listening.
    """
    command = [sys.executable, "-m", "dev.n8n", "--port", "0"]
    command += ["--reports-to", reports_to] if reports_to is not None else []
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(_REPOSITORY), str(_REPOSITORY / "plugins")])}
    environment.pop(KEY, None)
    environment |= {KEY: key} if key is not None else {}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            # It prints its URL when it is ready, and ends without one if it cannot be.
            url = process.stdout.readline().strip() if process.stdout else ""
            if not url:
                msg = "The n8n stand-in did not start."
                raise RuntimeError(msg)
            yield N8nControl(url)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
