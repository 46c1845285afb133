"""Start the stand-in, register workflows and set faults."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dev.n8n.faults import STARTING, UNREGISTERED
from dev.stand_in.client import Control, process

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from dev.n8n.app import Workflow
    from dev.stand_in.faults import Fault

KEY_VARIABLE = "N8N_STAND_IN_KEY"
"""Environment variable with the key of protected webhooks. Without it, they accept any key."""

REPORT_SECRET = "N8N_STAND_IN_REPORT_SECRET"  # noqa: S105 - the name of a variable
"""Environment variable with the bearer token of the reports."""


@dataclass(frozen=True)
class N8nControl(Control):
    """Controls a running stand-in."""

    health = "/healthz"

    def webhook(self, path: str) -> str:
        """Return the URL of the webhook with this path."""
        return f"{self.url}/webhook/{path}"

    def register(self, workflows: Mapping[str, Workflow]) -> None:
        """Add or replace workflows, by the paths of their webhooks."""
        self._call("PUT", "/__control__/workflows", json={p: w.model_dump() for p, w in workflows.items()})

    def faults(self, faults: Mapping[str, Sequence[Fault]]) -> None:
        """Set the faults of the next calls of each path, in order. They replace the remaining faults of the path.

        A fault with a status replaces n8n's response, and nothing is executed. A fault without a status executes the
        workflow and delays or truncates the response.
        """
        self._call("PUT", "/__control__/faults", json={p: [f.model_dump() for f in fs] for p, fs in faults.items()})

    def boot(self, *, starting: int = 1, unregistered: int = 1) -> None:
        """Respond to the next requests as n8n does during its startup: a page with status 200, then a page with 404.

        Args:
            starting: Number of startup pages with status 200.
            unregistered: Number of 404 pages after them.
        """
        pages = [STARTING] * starting + [UNREGISTERED] * unregistered
        self._call("PUT", "/__control__/boot", json=[page.model_dump() for page in pages])

    def executions(self, path: str | None = None) -> list[dict[str, Any]]:
        """Return the executions, oldest first: ``id``, ``path``, ``arrived_at``, ``idempotency_key`` and ``body``.

        ``arrived_at`` is the Unix time in seconds at which the stand-in received the request.

        Args:
            path: Path of one webhook; None for all.
        """
        executions = self._call("GET", "/__control__/executions").json()
        return [execution for execution in executions if path in {None, execution["path"]}]

    def requests(self, path: str | None = None) -> list[dict[str, Any]]:
        """Return the requests, executed or not, oldest first, with ``path``, ``headers`` and ``body``.

        Args:
            path: Path of one webhook; None for all.
        """
        requests = self._call("GET", "/__control__/requests").json()
        return [request for request in requests if path in {None, request["path"]}]


@contextmanager
def running(log: Path, *, key: str | None = None, reports_to: str | None = None) -> Iterator[N8nControl]:
    """Run a stand-in as a separate process during the `with` block.

    Args:
        log: File to which the output of the process is appended.
        key: Key of protected webhooks; None accepts any key.
        reports_to: Base URL for reports, without ``/{traceId}/{kpiId}``; None disables reports.

    Yields:
        The control of the stand-in, which is ready.

    Raises:
        RuntimeError: The process ended before it listened. The text contains the end of its log.
    """
    arguments = ["--port", "0", *(["--reports-to", reports_to] if reports_to is not None else [])]
    with process("dev.n8n", *arguments, environment={KEY_VARIABLE: key}, log=log) as url:
        yield N8nControl(url)
