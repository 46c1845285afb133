"""Errors of webhook calls. The class says whether the workflow was started."""

from __future__ import annotations

from aggregator.core.errors import AggregatorError, PermanentError, TransientError


class N8nError(AggregatorError):
    """A webhook call that n8n did not accept.

    Attributes:
        status: HTTP status of the last response; None if there was no response.
        retry_count: Number of requests after the first one.
    """

    status: int | None = None
    retry_count: int = 0


class N8nRefusedError(N8nError, PermanentError):
    """The workflow was not started, or it ran and failed. The same request would fail again."""


class N8nUnavailableError(N8nError, TransientError):
    """The workflow was not started. The same request may start it later."""


class N8nNotRegisteredError(N8nRefusedError):
    """n8n has no such webhook: for a second while a workflow is republished, or permanently. The hook asks again."""


class N8nUnknownError(N8nError, PermanentError):
    """The request was sent and n8n may have started the workflow, so the request must not be repeated."""
