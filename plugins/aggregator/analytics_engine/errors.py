"""Errors of the SQL API: whether a response is transient or permanent, and what the reader can do.

Cloudflare documents no errors of this API. Statuses and texts are those that its users report.

| Response | Error |
|---|---|
| none, 408, 425, other 429, 500, 502, 503 | transient; ``Retry-After`` is obeyed |
| 504 | transient once, permanent the second time |
| 429 about memory, time or result size; 501, 507 | permanent |
| 400, 401, 403, 404, 422, redirects | permanent |
"""

from __future__ import annotations

import re
from http import HTTPStatus
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

import requests

from aggregator.core.errors import (
    AggregatorError,
    PermanentError,
    TransientError,
    is_transient,
    is_transient_http_status,
    parse_retry_after,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlglot.tokenizer_core import Token

MAX_BODY = 500
"""Characters of a response's body that an error keeps."""

_QUERY_ID = re.compile(r"\bquery[ _-]?id\W{1,4}([\w-]{4,64})", re.IGNORECASE)
_QUERY_ID_HEADERS = ("x-clickhouse-query-id", "x-query-id", "query-id")
_NO_TYPE = re.compile(r"unable to find type of column|unknown table", re.IGNORECASE)
_QUERY_LIMIT = re.compile(
    r"\bmemory\b|\b(?:query|execution)[ -]?time|\btime limit|\btoo long\b|\bquery timed out\b"
    r"|\bresults?\b.{0,40}\b(?:size|large|big|rows)\b",
    re.IGNORECASE,
)
_PERMANENT = frozenset({HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.INSUFFICIENT_STORAGE})

_ADVICE: dict[int, str] = {
    **dict.fromkeys(range(300, 400), "Redirects are not followed. Check the connection's host."),
    HTTPStatus.UNAUTHORIZED: "Set the connection's password to a valid API token.",
    HTTPStatus.FORBIDDEN: "Check the connection's API token (permission: Account Analytics Read) and its account_id.",
    HTTPStatus.NOT_FOUND: "Check the connection's host and account_id.",
    HTTPStatus.UNPROCESSABLE_ENTITY: "Correct the query.",
}
_NARROW = "The query exceeds a limit of Analytics Engine. Narrow its range."


class DialectError(PermanentError):
    """Analytics Engine's SQL API does not accept the query or a parameter."""


def refusal(part: str, reason: str, token: Token | None = None) -> DialectError:
    """The error for a part of a query, such as ``column blob21``. Neither ``part`` nor ``reason`` quotes a literal."""
    line = f" in line {token.line}" if token else ""
    return DialectError(
        f"The query is not valid Analytics Engine SQL: {part}{line}: {reason}. Nothing was sent. Correct the query."
    )


class AnalyticsEngineError(AggregatorError):
    """Analytics Engine did not return a result.

    Attributes:
        status: HTTP status; None without a response.
        body: The beginning of the response's body, without the token.
        request_id: Cloudflare's id of the request (``cf-ray``), which its support needs.
    """

    status: int | None = None
    body: str = ""
    request_id: str | None = None

    @classmethod
    def of(cls, message: str, response: requests.Response, body: str = "", **details: Any) -> Self:
        """The error about a response. ``details`` are other arguments of its class."""
        error = cls(message, **details)
        error.status, error.body, error.request_id = response.status_code, body, response.headers.get("cf-ray")
        return error

    @property
    def is_about_missing_types(self) -> bool:
        """Whether the query names a column or dataset that has no rows, and so no type, or that does not exist."""
        return self.status == HTTPStatus.UNPROCESSABLE_ENTITY and _NO_TYPE.search(self.body) is not None


class AnalyticsEngineRefusedError(AnalyticsEngineError, PermanentError):
    """The same query will fail again."""


class AnalyticsEngineUnavailableError(AnalyticsEngineError, TransientError):
    """The same query may succeed later."""


def connection_error(error: requests.RequestException, redact: Callable[[str], str]) -> AnalyticsEngineError:
    """The error for a request without a response."""
    reason = redact(f"{type(error).__name__}: {error}")[:MAX_BODY]
    if is_transient(error):
        return AnalyticsEngineUnavailableError(f"Analytics Engine did not respond ({reason}). Nothing was written.")
    return AnalyticsEngineRefusedError(
        f"The request to Analytics Engine could not be sent ({reason}). Nothing was written. Check the connection's "
        "host."
    )


def interrupted(error: requests.RequestException, response: requests.Response) -> AnalyticsEngineUnavailableError:
    """The error for a response that ends before its last byte."""
    # The error's own text can quote the body.
    message = f"Analytics Engine's response broke off ({type(error).__name__}). Nothing was written."
    return AnalyticsEngineUnavailableError.of(message, response)


def response_error(response: requests.Response, redact: Callable[[str], str]) -> AnalyticsEngineError:
    """The error for a response with a status other than 200. At most 16 KiB of its body are read."""
    status, text = response.status_code, redact(_beginning(response))
    body, query_id = text[:MAX_BODY], _query_id(response, text)
    ids = f"request {response.headers.get('cf-ray')}" + (f", query {query_id}" if query_id else "")
    message = f"Analytics Engine returned {status} ({ids}): {body or 'no body'}. Nothing was written."
    if status == HTTPStatus.TOO_MANY_REQUESTS and _QUERY_LIMIT.search(body):
        return AnalyticsEngineRefusedError.of(f"{message} {_NARROW}", response, body)
    if is_transient_http_status(status) and status not in _PERMANENT:
        retry_after = parse_retry_after(response.headers.get("Retry-After"))
        return AnalyticsEngineUnavailableError.of(message, response, body, retry_after=retry_after)
    return AnalyticsEngineRefusedError.of(f"{message} {_ADVICE.get(status, '')}".rstrip(), response, body)


def as_permanent(error: AnalyticsEngineError) -> AnalyticsEngineRefusedError:
    """The permanent error for a second gateway timeout of one query."""
    permanent = AnalyticsEngineRefusedError(f"{error} This was the second time. {_NARROW}")
    permanent.status, permanent.body, permanent.request_id = error.status, error.body, error.request_id
    return permanent


def _query_id(response: requests.Response, text: str) -> str | None:
    in_headers = filter(None, (response.headers.get(name) for name in _QUERY_ID_HEADERS))
    match = _QUERY_ID.search(text)
    return next(in_headers, match[1] if match else None)


def _beginning(response: requests.Response) -> str:
    try:
        beginning = b"".join(islice(response.iter_content(1024), 16))
    except requests.RequestException:
        return ""
    return " ".join(beginning.decode(errors="replace").split())
