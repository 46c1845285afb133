"""Transient or hard: the one place that decides (spec: shared parts, error classes)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_RETRY_AFTER = timedelta(minutes=10)
"""The most that another side may put off a retry: a longer wish would let it miss the deadline of a run."""

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
"""Codes, or classes of codes, after which the same statement may succeed later, with the reason.

Of PostgreSQL's codes (appendix A of its manual), a failover or a restore also produces some that stay permanent,
because their usual cause is another:

- ``3D000``, ``3F000``, ``42P01``: not restored yet, but mostly a wrong name.
- ``55000``: recovery, but mostly an object in the wrong state.
- ``XX000``, ``XX001``, ``XX002``: damage that a person has to repair.

PostgREST has codes of its own.
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
"""Lost connections and timeouts without a code. By name: everything imports this module, which shall import nothing."""

SENTENCE_AT_MOST = 300
"""Characters of an error's first sentence."""

_END_OF_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"'`({])")

_AIRFLOW_RUNTIME_ERROR = "airflow.sdk.exceptions.AirflowRuntimeError"


class AggregatorError(Exception):
    """Base of every error this project raises on purpose.

    Its text says what was wrong, what was done about it, and what the reader can do now. It never holds a secret or a
    row's values.
    """


class TransientError(AggregatorError):
    """The same call may succeed later: it is retried."""

    def __init__(self, message: str, *, retry_after: timedelta | None = None) -> None:
        """Keep what the other side asked for.

        Args:
            message: What went wrong.
            retry_after: How long the other side asked to be left alone, if it said so.
        """
        super().__init__(message)
        self.retry_after = retry_after


class PermanentError(AggregatorError):
    """The same call will fail again: it is not retried."""


class WrongParamsError(PermanentError):
    """The params of a run are wrong: whoever started the run has to correct them, and nothing else is broken."""


class UnknownConnectionError(PermanentError):
    """There is no such connection."""

    def __init__(self, conn_id: str) -> None:
        """Say which, and how it comes about.

        Args:
            conn_id: Airflow connection.
        """
        super().__init__(
            f"Connection {conn_id!r} is unknown. Create it in Airflow, or set AIRFLOW_CONN_{conn_id.upper()}."
        )


def is_transient_sqlstate(sqlstate: str | None) -> bool:
    """Whether a statement that failed with this code may succeed later.

    Args:
        sqlstate: A SQLSTATE of five characters, a PostgREST code, or None where the server gave none.

    Returns:
        True for the codes and classes of :data:`TRANSIENT_SQLSTATES`.
    """
    return sqlstate is not None and sqlstate.startswith(tuple(TRANSIENT_SQLSTATES))


def is_transient_http_status(status: int) -> bool:
    """Whether a request that was answered with this status may succeed later.

    Args:
        status: HTTP status code.

    Returns:
        True for 408, 425, 429 and 5xx. A service that means something else by one of them says so in its own hook.
    """
    return (
        status in {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
        or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    )


def parse_retry_after(header: str | None) -> timedelta | None:
    """What a ``Retry-After`` header asks for (RFC 9110, section 10.2.3).

    Args:
        header: Its value, seconds or an HTTP date; None if there was none.

    Returns:
        The time from now on, never negative; None if there was no header or it cannot be understood.
    """
    if header is None:
        return None
    try:
        if header.strip().isdecimal():
            return timedelta(seconds=int(header))
        moment = parsedate_to_datetime(header)
        return max(moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC), timedelta(0))
    except (ValueError, OverflowError):
        return None


def is_transient(exception: BaseException) -> bool:
    """Whether the work that ended with this exception may succeed when it is done again.

    The outermost exception that can be judged decides: by its class, or the SQLSTATE or HTTP status that it carries;
    else the one it was raised from. What cannot be judged is hard. An interruption from outside (execution timeout,
    exit, Ctrl-C) says nothing about the work, so that is transient.

    Args:
        exception: What ended the work.

    Returns:
        True if transient, False if hard.
    """
    verdicts = (verdict for link in _chain(exception) if (verdict := _judge(link)) is not None)
    return next(verdicts, False)


def first_sentence(exception: BaseException) -> str:
    """What went wrong, in one sentence that may leave this system.

    Args:
        exception: What ended the work.

    Returns:
        The first sentence of one of our errors, at most :data:`SENTENCE_AT_MOST` characters. Of a foreign error only
        its class: its text may hold a secret or a row's values.
    """
    if not isinstance(exception, AggregatorError):
        return f"{type(exception).__name__} (its text is in the log of the task)."
    sentence = _END_OF_SENTENCE.split(" ".join(str(exception).split()), maxsplit=1)[0]
    return sentence if len(sentence) <= SENTENCE_AT_MOST else f"{sentence[: SENTENCE_AT_MOST - 1]}…"


def retry_after(exception: BaseException) -> timedelta | None:
    """How long the other side asked to be left alone, at most :data:`LONGEST_RETRY_AFTER`.

    Args:
        exception: What ended the work.

    Returns:
        The time; None if it did not ask.
    """
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


def _judge(exception: BaseException) -> bool | None:
    """The verdict on one exception, without its causes; None if it has no say."""
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
    # Without a status the API server was not reached.
    status = (exception.error.detail or {}).get("status_code")
    return status is None or is_transient_http_status(status)


def _sqlstate(exception: BaseException) -> str | None:
    # psycopg 3, psycopg 2 and PostgREST clients, in this order; other libraries use ``code`` for something else.
    for attribute in ("sqlstate", "pgcode", "code"):
        value = getattr(exception, attribute, None)
        if isinstance(value, str) and (attribute != "code" or value.startswith("PGRST")):
            return value
    return None
