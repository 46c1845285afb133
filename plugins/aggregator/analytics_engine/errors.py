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
from typing import TYPE_CHECKING, Any

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


class AnalyticsEngineError(AggregatorError):
    """Analytics Engine did not return a result.

    Attributes:
        status: HTTP status; None without a response.
        body: The beginning of the response's body, without the token.
        request_id: Cloudflare's id of the request (``cf-ray``), which its support needs.
        query_id: Id of the query, if the response has one in its headers or its text.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        body: str = "",
        request_id: str | None = None,
        query_id: str | None = None,
    ) -> None:
        """Keep the details of the response.

        Args:
            message: What failed, the state it left, and what to do.
            status: See the class.
            body: See the class.
            request_id: See the class.
            query_id: See the class.
        """
        super().__init__(message)
        self.status = status
        self.body = body
        self.request_id = request_id
        self.query_id = query_id

    @property
    def is_about_missing_types(self) -> bool:
        """Whether the query names a column or dataset that has no rows, and so no type, or that does not exist."""
        return self.status == HTTPStatus.UNPROCESSABLE_ENTITY and _NO_TYPE.search(self.body) is not None


class AnalyticsEngineRefusedError(AnalyticsEngineError, PermanentError):
    """The same query will fail again."""


class AnalyticsEngineUnavailableError(AnalyticsEngineError, TransientError):
    """The same query may succeed later."""


def connection_error(error: requests.RequestException, redact: Callable[[str], str]) -> AnalyticsEngineError:
    """The error for a request without a response.

    Args:
        error: From the HTTP client.
        redact: Removes the token from a text.
    """
    reason = redact(f"{type(error).__name__}: {error}")[:MAX_BODY]
    if is_transient(error):
        return AnalyticsEngineUnavailableError(f"Analytics Engine did not respond ({reason}). Nothing was written.")
    return AnalyticsEngineRefusedError(
        f"The request to Analytics Engine could not be sent ({reason}). Nothing was written. Check the connection's "
        "host."
    )


def interrupted(error: requests.RequestException, response: requests.Response) -> AnalyticsEngineUnavailableError:
    """The error for a response that ends before its last byte.

    Args:
        error: From the HTTP client. Its text can quote the body, so only its class is shown.
        response: The response.
    """
    return AnalyticsEngineUnavailableError(
        f"Analytics Engine's response broke off ({type(error).__name__}). Nothing was written.",
        status=response.status_code,
        request_id=response.headers.get("cf-ray"),
    )


def response_error(response: requests.Response, redact: Callable[[str], str]) -> AnalyticsEngineError:
    """The error for a response with a status other than 200.

    Args:
        response: The response; its body is read, at most 16 KiB.
        redact: Removes the token from a text.
    """
    status = response.status_code
    text = redact(_beginning(response))
    body, request_id, query_id = text[:MAX_BODY], response.headers.get("cf-ray"), _query_id(response, text)
    details: dict[str, Any] = {"status": status, "body": body, "request_id": request_id, "query_id": query_id}
    ids = f"request {request_id}" + (f", query {query_id}" if query_id else "")
    message = f"Analytics Engine returned {status} ({ids}): {body or 'no body'}. Nothing was written."
    if status == HTTPStatus.TOO_MANY_REQUESTS and _QUERY_LIMIT.search(body):
        return AnalyticsEngineRefusedError(f"{message} {_NARROW}", **details)
    if is_transient_http_status(status) and status not in _PERMANENT:
        error = AnalyticsEngineUnavailableError(message, **details)
        error.retry_after = parse_retry_after(response.headers.get("Retry-After"))
        return error
    return AnalyticsEngineRefusedError(f"{message} {_ADVICE.get(status, '')}".rstrip(), **details)


def as_permanent(error: AnalyticsEngineError) -> AnalyticsEngineRefusedError:
    """The permanent error for a second gateway timeout of one query."""
    return AnalyticsEngineRefusedError(
        f"{error} This was the second time. {_NARROW}",
        status=error.status,
        body=error.body,
        request_id=error.request_id,
        query_id=error.query_id,
    )


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
