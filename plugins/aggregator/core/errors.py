"""Classify errors as transient or permanent, in one place (spec: shared parts, error classes)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_RETRY_AFTER = timedelta(minutes=10)
"""Longest delay that a server can request for a retry. A longer one would exceed most deadlines."""

TRANSIENT_SQLSTATES = {
    "08": "the connection failed or broke; poolers send 08P01 while the server behind them is away",
    "25006": "read-only: a failover left the connection on a replica, or the provider waits for disk space",
    "25P03": "idle_in_transaction_session_timeout ended the session",
    "25P04": "transaction_timeout ended the session",
    "40001": "serialization failure; on a replica, a conflict with recovery",
    "40P01": "deadlock",
    "53": "disk, memory or connections ran out; a provider may be resizing the server",
    "55P03": "lock_timeout, or nowait",
    "57": "shut down, starting, in recovery, canceled, or the database was dropped and is being restored",
    "58": "the server's disk or files failed, which precedes a failover or follows a restore",
    "72000": "snapshot too old: another try gets a new one",
    "HV00N": "a foreign server cannot be reached",
    "PGRST301": "PostgREST: the token expired",
    "PGRST302": "PostgREST: anonymous access is off while it reloads",
}
"""Transient codes, or classes of codes, with the reason.

Appendix A of PostgreSQL's manual lists its codes; PostgREST has codes of its own. A failover or a restore also
produces these codes. They count as permanent because their usual cause is permanent:

- ``3D000``, ``3F000``, ``42P01``: an object that is not restored yet, but usually a wrong name.
- ``55000``: recovery, but usually an object in the wrong state.
- ``XX000``, ``XX001``, ``XX002``: damage that a person must repair.
"""

TRANSIENT_EXCEPTIONS = frozenset(
    {
        "airflow.sdk.exceptions.TaskDeferralTimeout",
        "psycopg.OperationalError",
        "psycopg2.OperationalError",
        "requests.exceptions.ChunkedEncodingError",
        "requests.exceptions.ConnectionError",
        "requests.exceptions.Timeout",
        "socket.gaierror",
        "urllib3.exceptions.ProtocolError",
        "urllib3.exceptions.TimeoutError",
    }
)
"""Lost connections and timeouts without a code, by name: this module must not import their libraries."""

SENTENCE_AT_MOST = 300
"""Maximum length of :func:`first_sentence`, in characters."""

_END_OF_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"'`({])")

_AIRFLOW_RUNTIME_ERROR = "airflow.sdk.exceptions.AirflowRuntimeError"


class AggregatorError(Exception):
    """Base of all errors that this project raises.

    The text says what failed, what state that left, and what to do. It never contains a secret or the values of a row.
    """


class TransientError(AggregatorError):
    """The same call may succeed later, so it is retried."""

    def __init__(self, message: str, *, retry_after: timedelta | None = None) -> None:
        """Create the error.

        Args:
            message: Its text.
            retry_after: The delay that the server requested; None if it requested none.
        """
        super().__init__(message)
        self.retry_after = retry_after


class PermanentError(AggregatorError):
    """The same call will fail again, so it is not retried."""


class WrongParamsError(PermanentError):
    """The params of a run are wrong. Only the person who started the run needs to act."""


class UnknownConnectionError(PermanentError):
    """An Airflow connection does not exist."""

    def __init__(self, conn_id: str) -> None:
        super().__init__(
            f"Connection {conn_id!r} is unknown. Create it in Airflow, or set AIRFLOW_CONN_{conn_id.upper()}."
        )


def is_transient_sqlstate(sqlstate: str | None) -> bool:
    """Whether a statement that failed with this code may succeed later: see :data:`TRANSIENT_SQLSTATES`."""
    return sqlstate is not None and sqlstate.startswith(tuple(TRANSIENT_SQLSTATES))


def is_transient_http_status(status: int) -> bool:
    """Whether a request may succeed later: after 408, 425, 429 and 5xx. Hooks of some services have other rules."""
    return (
        status in {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
        or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    )


def parse_retry_after(header: str | None) -> timedelta | None:
    """The delay in a ``Retry-After`` header (RFC 9110, section 10.2.3).

    Args:
        header: Its value, in seconds or as an HTTP date; None if there is no header.

    Returns:
        The time from now, not negative; None if there is no header or it is invalid.
    """
    if header is None:
        return None
    try:
        if header.strip().isdecimal():
            return timedelta(seconds=int(header))
        date = parsedate_to_datetime(header)
        return max(date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC), timedelta(0))
    except (ValueError, OverflowError):
        return None


def is_transient(exception: BaseException) -> bool:
    """Whether work that failed with this exception may succeed on a retry.

    The class, SQLSTATE or HTTP status of the exception decides. If none of them does, its cause decides, and so on. An
    exception without a decision is permanent. Interruptions (execution timeout, exit, Ctrl-C) are transient, because
    they do not come from the work.
    """
    decisions = (decision for link in _chain(exception) if (decision := _classify(link)) is not None)
    return next(decisions, False)


def first_sentence(exception: BaseException) -> str:
    """The first sentence of an error, safe to send to an external system.

    Returns:
        At most :data:`SENTENCE_AT_MOST` characters. For errors of other libraries only the class: their text may
        contain a secret or the values of a row.
    """
    if not isinstance(exception, AggregatorError):
        return f"{type(exception).__name__} (its text is in the log of the task)."
    sentence = _END_OF_SENTENCE.split(" ".join(str(exception).split()), maxsplit=1)[0]
    return sentence if len(sentence) <= SENTENCE_AT_MOST else f"{sentence[: SENTENCE_AT_MOST - 1]}…"


def retry_after(exception: BaseException) -> timedelta | None:
    """The delay that the server requested, at most :data:`LONGEST_RETRY_AFTER`."""
    for link in _chain(exception):
        if isinstance(link, TransientError) and link.retry_after:
            return min(link.retry_after, LONGEST_RETRY_AFTER)
    return None


def _chain(exception: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while exception is not None and id(exception) not in seen:
        seen.add(id(exception))
        yield exception
        exception = exception.__cause__


def _classify(exception: BaseException) -> bool | None:
    """Whether an exception is transient, without its causes; None if that is not known."""
    if isinstance(exception, PermanentError):
        return False
    interrupted = not isinstance(exception, Exception)
    if interrupted or isinstance(exception, (TransientError, ConnectionError, TimeoutError)):
        return True
    if (sqlstate := _sqlstate(exception)) is not None:
        return is_transient_sqlstate(sqlstate)
    if isinstance(status := getattr(getattr(exception, "response", None), "status_code", None), int):
        return is_transient_http_status(status)
    names = {f"{base.__module__}.{base.__qualname__}" for base in type(exception).__mro__}
    if _AIRFLOW_RUNTIME_ERROR in names:
        return _is_transient_api_server_error(exception)
    return True if names & TRANSIENT_EXCEPTIONS else None


def _is_transient_api_server_error(exception: Any) -> bool:
    if exception.error.error.name != "API_SERVER_ERROR":
        return False
    # There is no status if the API server was not reached.
    status = (exception.error.detail or {}).get("status_code")
    return status is None or is_transient_http_status(status)


def _sqlstate(exception: BaseException) -> str | None:
    # Attributes of psycopg 3, psycopg 2 and PostgREST clients. Other libraries use ``code`` for something else.
    for attribute in ("sqlstate", "pgcode", "code"):
        value = getattr(exception, attribute, None)
        if isinstance(value, str) and (attribute != "code" or value.startswith("PGRST")):
            return value
    return None
