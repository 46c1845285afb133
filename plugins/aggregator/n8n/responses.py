"""Judge n8n's responses: one table of rules decides whether a workflow was started.

The source of each rule is a recording of n8n 2.41, n8n's source, or a specification.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import httpx

from aggregator.core.errors import parse_retry_after
from aggregator.n8n.errors import N8nError, N8nNotRegisteredError, N8nRefusedError, N8nUnavailableError, N8nUnknownError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

MAX_MESSAGE = 500
"""Number of characters of n8n's message that an error keeps."""

STARTING_UP: Final = "n8n is starting up. Please wait"
"""The page that n8n returns with status 200 to every request until its database migrations are done."""

_NOT_REGISTERED: Final = "not registered"
_PROBLEM: Final = "There was a problem executing the workflow"
_TAG = re.compile(r"<(?:style|script)\b.*?</(?:style|script)>|<[^>]*>", re.DOTALL | re.IGNORECASE)


class Outcome(Enum):
    """What a response says about the workflow.

    Attributes:
        DELIVERED: n8n accepted the call. The workflow was started, but it may not be finished.
        NOT_STARTED: The workflow was not started. The same request may start it later.
        NOT_REGISTERED: As `NOT_STARTED`, but the webhook may be missing permanently.
        UNKNOWN: n8n may have started the workflow.
        FAILED: The workflow was not started, or it ran and failed. The same request would fail again.
    """

    DELIVERED = "delivered"
    NOT_STARTED = "not started"
    NOT_REGISTERED = "not registered"
    UNKNOWN = "unknown"
    FAILED = "failed"


@dataclass(frozen=True)
class Response:
    """The parts of an HTTP response that the rules use.

    Attributes:
        status: HTTP status.
        content_type: Header ``Content-Type``; empty if missing.
        text: Beginning of the body, without the API key.
        complete: False if the connection broke while the beginning of the body was read.
        retry_after: Header ``Retry-After``.
        location: Header ``Location`` of a redirect.
    """

    status: int
    content_type: str = ""
    text: str = ""
    complete: bool = True
    retry_after: str | None = None
    location: str | None = None

    @property
    def is_html(self) -> bool:
        """Whether the body is an HTML page."""
        return "html" in self.content_type

    @property
    def is_json(self) -> bool:
        """Whether the body is a JSON object."""
        return self._json is not None

    @cached_property
    def message(self) -> str:
        """n8n's message and hint, or the text of the page, as one printable line."""
        text = self._text
        if self._json is not None:
            parts = [self._json.get("message"), self._json.get("hint")]
            text = " ".join(part for part in parts if isinstance(part, str)) or text
        printable = "".join(character if character.isprintable() else " " for character in text)
        return " ".join(printable.split())[:MAX_MESSAGE]

    @cached_property
    def _text(self) -> str:
        return _TAG.sub(" ", self.text) if self.is_html else self.text

    @cached_property
    def _json(self) -> dict[str, Any] | None:
        try:
            value = json.loads(self._text)
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None


class Rule(NamedTuple):
    """One row of the table: HTTP statuses, and a condition on the rest of the response. ``source`` says why."""

    outcome: Outcome
    statuses: Collection[int]
    source: str
    matches: Callable[[Response], bool] = lambda _: True


def _is_startup_page(response: Response) -> bool:
    return response.is_html and response.text.strip() == STARTING_UP


def _may_be_startup_page(response: Response) -> bool:
    return response.is_html and not response.complete and STARTING_UP.startswith(response.text.strip())


def _is_page(response: Response) -> bool:
    return not response.is_json and (response.is_html or "text/plain" in response.content_type)


_SUCCESS: Final = range(200, 300)
_N8N: Final = "n8n 2.41, recorded"
_N8N_SERVER: Final = "n8n 2.41, dist/abstract-server.js"
_N8N_EXECUTION: Final = "n8n 2.41, dist/webhooks/webhook-helpers.js"
_HTTP: Final = "RFC 9110, 8470 and 6585"
_CLOUDFLARE: Final = "developers.cloudflare.com/support/troubleshooting/http-status-codes/cloudflare-5xx-errors"

RULES: Final = (
    # n8n sends its startup page to every request; a workflow may send a page of its own.
    Rule(Outcome.NOT_STARTED, _SUCCESS, _N8N_SERVER, _is_startup_page),
    Rule(Outcome.UNKNOWN, _SUCCESS, _N8N_SERVER, _may_be_startup_page),
    Rule(Outcome.DELIVERED, _SUCCESS, _N8N),
    # The server did not process the request, or Cloudflare could not connect to it.
    Rule(Outcome.NOT_STARTED, {408, 425, 429, 503}, _HTTP),
    Rule(Outcome.NOT_STARTED, {521, 523, 525, 526, 530}, _CLOUDFLARE),
    # A page until n8n, or the proxy in front of it, has its routes; JSON once n8n has its webhooks.
    Rule(Outcome.NOT_STARTED, {404}, _N8N, _is_page),
    Rule(Outcome.NOT_REGISTERED, {404}, _N8N, lambda it: it.is_json and _NOT_REGISTERED in it.message),
    # A proxy may have forwarded the request, and n8n finishes a workflow whose caller is gone.
    Rule(Outcome.UNKNOWN, {502, 504}, _HTTP),
    Rule(Outcome.UNKNOWN, {520, 522, 524}, _CLOUDFLARE),
    # n8n lost track of the execution.
    Rule(Outcome.UNKNOWN, {500}, _N8N_EXECUTION, lambda it: _PROBLEM in it.message),
)
"""The first matching rule decides. Without a match, the outcome is `Outcome.FAILED`.

n8n 2.41 returns 401 or 403 for a wrong key, 422 for wrong input, and 500 for a workflow that ran and failed.
"""

_ERRORS: Final[dict[Outcome, tuple[type[N8nError], str]]] = {
    Outcome.NOT_STARTED: (
        N8nUnavailableError,
        "The workflow was not started. If this lasts, check that n8n is running and reachable.",
    ),
    Outcome.NOT_REGISTERED: (
        N8nNotRegisteredError,
        "The workflow was not started. Publish it, and check the path and the method of its webhook.",
    ),
    Outcome.UNKNOWN: (
        N8nUnknownError,
        "n8n may have started the workflow, so the request is not repeated. Check n8n's executions.",
    ),
    Outcome.FAILED: (
        N8nRefusedError,
        "The workflow was not started, or it failed. Fix the cause, then send the request again.",
    ),
}
"""For each outcome but `Outcome.DELIVERED`: the error, and the state and next step that its text names."""

MAY_HAVE_STARTED: Final = _ERRORS[Outcome.UNKNOWN][1]


def judge(response: Response) -> Outcome:
    """Return the outcome of the first rule in `RULES` that matches, or `Outcome.FAILED`. Redirects are not followed."""
    outcomes = (rule.outcome for rule in RULES if response.status in rule.statuses and rule.matches(response))
    return next(outcomes, Outcome.FAILED)


def check(response: Response, origin: str, *, key_withheld: bool) -> None:
    """Raise an error unless n8n accepted the call. ``key_withheld``: there is a key that was not sent to this origin.

    Raises:
        N8nRefusedError: The outcome is `Outcome.FAILED`.
        N8nUnavailableError: The outcome is `Outcome.NOT_STARTED`. It has the server's ``Retry-After``.
        N8nNotRegisteredError: The outcome is `Outcome.NOT_REGISTERED`.
        N8nUnknownError: The outcome is `Outcome.UNKNOWN`.
    """
    outcome = judge(response)
    if outcome is Outcome.DELIVERED:
        return
    error_class, advice = _ERRORS[outcome]
    if key_withheld and response.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        advice = f"The API key was not sent, because the connection's allowed_origins do not contain {origin}."
    error = error_class(f"{_describe(response, origin)} {advice}")
    error.status = response.status
    if isinstance(error, N8nUnavailableError):
        error.retry_after = parse_retry_after(response.retry_after)
    raise error


def _describe(response: Response, origin: str) -> str:
    status = response.status
    if response.location is not None:
        return f"{origin} returned {status}, a redirect to {_host(response.location)}, which is not followed."
    if not response.complete and status in _SUCCESS:
        return f"{origin} returned {status} and the connection broke."
    message = response.message or "no message"
    return f"n8n at {origin} returned {status}: {message}{'' if message.endswith(('.', '!', '?')) else '.'}"


def _host(location: str) -> str:
    try:
        return httpx.URL(location).host or "the same host"
    except httpx.InvalidURL:
        return "an invalid URL"
