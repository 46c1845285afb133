"""Start the stand-in, register workflows, and tell it to fail."""

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
"""Environment variable with the key that protected webhooks ask for; without it they take any."""

REPORT_SECRET = "N8N_STAND_IN_REPORT_SECRET"  # noqa: S105 - the name of a variable
"""Environment variable with the bearer of the reports."""


@dataclass(frozen=True)
class N8nControl(Control):
    """The control side of a running stand-in."""

    health = "/healthz"

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

    def boot(self, *, starting: int = 1, unregistered: int = 1) -> None:
        """Answer the next requests as an n8n that boots: with its page of status 200, then with 404, then in earnest.

        Args:
            starting: How many get the page that asks to wait.
            unregistered: How many after them get the HTML page of an unknown path.
        """
        pages = [STARTING] * starting + [UNREGISTERED] * unregistered
        self._call("PUT", "/__control__/boot", json=[page.model_dump() for page in pages])

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


@contextmanager
def running(log: Path, *, key: str | None = None, reports_to: str | None = None) -> Iterator[N8nControl]:
    """Run a stand-in in a process of its own, in the `with` block.

    Args:
        log: Where to add what the process says.
        key: What protected webhooks ask for; None takes anything.
        reports_to: URL below which ``/{traceId}/{kpiId}`` takes reports; None for nowhere.

    Yields:
        Its control side, ready.

    Raises:
        RuntimeError: It ended instead of listening; the text has the end of its log.
    """
    arguments = ["--port", "0", *(["--reports-to", reports_to] if reports_to is not None else [])]
    with process("dev.n8n", *arguments, environment={KEY_VARIABLE: key}, log=log) as url:
        yield N8nControl(url)
