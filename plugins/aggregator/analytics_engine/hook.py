"""Cloudflare Workers Analytics Engine, read through its SQL API (spec: shared parts).

Sources: https://developers.cloudflare.com/analytics/analytics-engine/sql-api/, ``limits/`` beside it for retention,
and https://developers.cloudflare.com/fundamentals/api/reference/limits/ for the rate of requests. Cloudflare documents
no errors of this API: statuses and texts are those that its users report. The pages below
https://developers.cloudflare.com/analytics/sql-api/ are about another API, with another dialect and other limits.
"""

from __future__ import annotations

import re
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from http import HTTPStatus
from itertools import islice
from typing import TYPE_CHECKING
from urllib.parse import quote

import requests
from airflow.sdk import BaseHook
from requests.auth import AuthBase
from sqlglot import exp, parse_one
from tenacity import wait_exponential_jitter

from aggregator.analytics_engine import dialect
from aggregator.analytics_engine.result import AnalyticsEngineResult
from aggregator.core import connections
from aggregator.core.errors import (
    AggregatorError,
    PermanentError,
    TransientError,
    is_transient,
    is_transient_http_status,
    parse_retry_after,
)
from aggregator.core.retrying import LONGEST_WAIT, retrying

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from airflow.sdk import Connection
    from tenacity.wait import wait_base

    from aggregator.analytics_engine.dialect import Parameter, Query
    from aggregator.analytics_engine.result import Value

RETENTION = timedelta(days=89)
"""How far back a window may begin. Cloudflare keeps three months without saying how long those are; this is the
shortest that three calendar months can be. A window that is refused too early keeps what is stored, one that is read
too late would replace it by what is left of the source."""

TIMEOUTS = (10.0, 90.0)
"""Seconds to connect, and to wait for the next bytes: a query may run for 60."""

MAX_BODY = 500
"""Characters that an exception keeps of an error's body."""

DEFAULT_HOST = "https://api.cloudflare.com"
_PATH = "/analytics_engine/sql"
_CHUNK = 64 * 1024

_TOKEN = re.compile(r"[!-~]+")
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
    **dict.fromkeys(range(300, 400), "Redirects are not followed: check the connection's host."),
    HTTPStatus.UNAUTHORIZED: "Put a valid API token into the connection's password.",
    HTTPStatus.FORBIDDEN: "The token needs the permission Account Analytics: Read for the connection's account_id.",
    HTTPStatus.NOT_FOUND: "Check the connection's host and account_id.",
    HTTPStatus.UNPROCESSABLE_ENTITY: "Correct the query.",
}


class AnalyticsEngineError(AggregatorError):
    """Analytics Engine did not answer a query.

    Attributes:
        status: HTTP status; None if there was no answer.
        body: The beginning of the answer's body, without the token.
        request_id: Cloudflare's id of the request (``cf-ray``), which its support asks for.
        query_id: Id of the query, if the answer has one in its headers or anywhere in its text.
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
        """Keep what is known about the answer.

        Args:
            message: What went wrong.
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


class AnalyticsEngineRefusedError(AnalyticsEngineError, PermanentError):
    """Analytics Engine will answer the same query in the same way again."""


class AnalyticsEngineUnavailableError(AnalyticsEngineError, TransientError):
    """Analytics Engine may answer the same query later."""


@dataclass(frozen=True)
class _Account(AuthBase):
    """Where to ask, and as whom; as requests' authentication, so that no ``.netrc`` takes the token's place."""

    url: str
    token: str = field(repr=False)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request

    def redact(self, text: str) -> str:
        return text.replace(self.token, "***")


class AnalyticsEngineHook(BaseHook):
    """Runs queries on the SQL API of Workers Analytics Engine.

    The connection has ``host`` (by default Cloudflare's API; with a scheme, else ``schema`` is it, by default https),
    ``port``, the API token as ``password``, and ``account_id`` in its extra.

    A query is judged by the dialect gate before it is sent. What is transient is tried again as long as no row was
    handed out; after that it goes up as an error for the task's retry.
    """

    default_conn_name = "analytics_engine"

    requests_sent = 0
    """Requests so far, repeated ones included."""

    def __init__(
        self,
        conn_id: str = default_conn_name,
        *,
        attempts: int = 4,
        wait: wait_base | None = None,
        sleep: Callable[[float], None] = time.sleep,
        timeouts: tuple[float, float] = TIMEOUTS,
    ) -> None:
        """Remember how to ask; nothing is read or sent yet.

        Args:
            conn_id: Airflow connection.
            attempts: How often a query is sent at most.
            wait: Seconds between attempts, unless ``Retry-After`` asks for more; by default 1, 2, 4 and some jitter.
            sleep: Waits that many seconds.
            timeouts: Seconds to connect, and to wait for the next bytes.
        """
        super().__init__()
        self.conn_id = conn_id
        self.attempts = attempts
        self.wait = wait or wait_exponential_jitter(initial=1, max=LONGEST_WAIT.total_seconds())
        self.sleep = sleep
        self.timeouts = timeouts

    @contextmanager
    def stream(self, sql: str, parameters: Mapping[str, Parameter] | None = None) -> Iterator[AnalyticsEngineResult]:
        """Run a query and read its rows as they arrive, in constant memory.

        Args:
            sql: One statement that ends with ``FORMAT JSON``; placeholders as `dialect.bind` has them.
            parameters: Values of the placeholders.

        Yields:
            The rows. A range, or a dataset, without any may come without columns as well.

        Raises:
            DialectError: The gate refuses the query; nothing was sent.
            AnalyticsEngineRefusedError: The query, the token or the account is refused, or the query is too heavy.
            AnalyticsEngineUnavailableError: No answer, several times in a row.
            TransientError: The answer was cut after the first row.
            PermanentError: The connection is incomplete, or the answer holds what its types do not allow.
        """
        query = dialect.parse(dialect.bind(sql, parameters or {}))
        if query.format != "JSON":
            msg = f"The hook reads FORMAT JSON, not {query.format}; nothing was sent. Change the end of the query."
            raise PermanentError(msg)
        if query.unreadable:
            msg = (
                f"The hook cannot read {query.unreadable}, which the query selects; nothing was sent. Select numbers, "
                "Strings, or times in UTC: toUnixTimestamp() and formatDateTime() convert times of other zones."
            )
            raise PermanentError(msg)
        with ExitStack() as resources:
            yield self._rows(resources, query)

    def query(self, sql: str, parameters: Mapping[str, Parameter] | None = None) -> list[dict[str, Value]]:
        """Run a query with a small result.

        Args:
            sql: As for `stream`.
            parameters: As for `stream`.

        Returns:
            The rows, each by column name.

        Raises:
            AggregatorError: As for `stream`.
        """
        with self.stream(sql, parameters) as result:
            names = [column.name for column in result.columns]
            return [dict(zip(names, row, strict=True)) for row in result]

    def require_retained(self, start: datetime) -> None:
        """Refuse a window that may have lost its oldest rows to retention.

        Args:
            start: When the window begins; aware.

        Raises:
            PermanentError: It begins more than `RETENTION` ago. The clock decides nothing but this.
        """
        oldest = datetime.now(UTC) - RETENTION
        if start < oldest:
            msg = (
                f"The window begins at {start:%Y-%m-%d %H:%M:%S %Z}, but Analytics Engine keeps three months and may "
                f"have lost rows from before {oldest:%Y-%m-%d}. Nothing was read, what is stored stays as it is."
            )
            raise PermanentError(msg)

    def _rows(self, resources: ExitStack, query: Query) -> AnalyticsEngineResult:
        text = f"{query.text}FORMAT JSON"
        try:
            return self._ask(resources, text)
        except AnalyticsEngineRefusedError as refusal:
            if query.probe is None or not _has_no_type(refusal) or not self._is_empty(resources, query.probe):
                raise
            self.log.warning("Analytics Engine answered 422, and a probe found no rows: counted as none.")
            return AnalyticsEngineResult.empty()

    def _is_empty(self, resources: ExitStack, probe: str) -> bool:
        """Whether a query without types is about a range without rows, rather than mistaken.

        Columns have types only where there are rows, so a condition on one can fail like the query did. ``timestamp``
        belongs to every dataset: where not even that can be typed, there are no rows. A probe without a row of its own
        found none either.
        """
        for count in dict.fromkeys([probe, _only_its_range(probe)]):
            try:
                return next(self._ask(resources, count), (0,)) == (0,)
            except AnalyticsEngineRefusedError as refusal:
                if not _has_no_type(refusal):
                    raise
        return True

    def _ask(self, resources: ExitStack, text: str) -> AnalyticsEngineResult:
        gateway_timeouts = 0

        def attempt() -> AnalyticsEngineResult:
            nonlocal gateway_timeouts
            try:
                return self._send(resources, text)
            except AnalyticsEngineUnavailableError as error:
                gateway_timeouts += error.status == HTTPStatus.GATEWAY_TIMEOUT
                if gateway_timeouts > 1:
                    raise _as_refused(error) from None
                raise

        return retrying(attempts=self.attempts, wait=self.wait, sleep=self.sleep, warn=self.log.warning)(attempt)

    def _send(self, resources: ExitStack, text: str) -> AnalyticsEngineResult:
        account = self._account
        self.requests_sent += 1
        with ExitStack() as attempt:
            try:
                response = requests.post(
                    account.url,
                    data=text.encode(),
                    headers={"Content-Type": "text/plain; charset=utf-8"},
                    auth=account,
                    timeout=self.timeouts,
                    allow_redirects=False,  # the token is for this host
                    stream=True,
                )
            except requests.RequestException as error:
                # Without its cause, which holds the request and so the token.
                raise _no_answer(error, account) from None
            attempt.enter_context(response)
            if response.status_code != HTTPStatus.OK:
                raise _refusal_or_fault(response, account)
            result = AnalyticsEngineResult(_body(response))
            resources.push(attempt.pop_all())
        return result

    @cached_property
    def _account(self) -> _Account:
        connection = connections.get(self.conn_id)
        token = (connection.password or "").strip()
        if not _TOKEN.fullmatch(token):
            msg = (
                f"Connection {self.conn_id!r} has no API token as its password, or one with characters no token has. "
                "Set it to a Cloudflare API token with the permission Account Analytics: Read."
            )
            raise PermanentError(msg)
        account_id = connection.extra_dejson.get("account_id")
        if not isinstance(account_id, str) or not account_id:
            msg = f"""Connection {self.conn_id!r} has no account. Set its extra to {{"account_id": "…"}}."""
            raise PermanentError(msg)
        return _Account(f"{_base_url(connection)}/client/v4/accounts/{quote(account_id, safe='')}{_PATH}", token)


def _base_url(connection: Connection) -> str:
    host = (connection.host or DEFAULT_HOST).rstrip("/")
    if "://" not in host:
        host = f"{connection.schema or 'https'}://{host}"
    return f"{host}:{connection.port}" if connection.port else host


def _only_its_range(probe: str) -> str:
    """The probe with no other conditions than those on ``timestamp``."""
    query = dialect.parse(probe)
    where = parse_one(f"SELECT 1 {query.where}", read="clickhouse").args.get("where")
    conditions = where.this.flatten() if where and isinstance(where.this, exp.And) else [where.this] if where else []
    kept = [c for c in conditions if {column.name for column in c.find_all(exp.Column)} == {"timestamp"}]
    condition = exp.Where(this=exp.and_(*kept)).sql(dialect="clickhouse") if kept else ""
    return " ".join(["SELECT count() AS n FROM", query.dataset or "", condition, "FORMAT JSON"])


def _has_no_type(refusal: AnalyticsEngineError) -> bool:
    return refusal.status == HTTPStatus.UNPROCESSABLE_ENTITY and _NO_TYPE.search(refusal.body) is not None


def _body(response: requests.Response) -> Iterator[bytes]:
    try:
        yield from response.iter_content(_CHUNK)
    except requests.RequestException as error:
        # Only its class: its text can quote the answer.
        msg = f"Analytics Engine's answer broke off ({type(error).__name__})."
        request_id = response.headers.get("cf-ray")
        raise AnalyticsEngineUnavailableError(msg, status=response.status_code, request_id=request_id) from None


def _no_answer(error: requests.RequestException, account: _Account) -> AnalyticsEngineError:
    reason = account.redact(f"{type(error).__name__}: {error}")[:MAX_BODY]
    if is_transient(error):
        return AnalyticsEngineUnavailableError(f"Analytics Engine did not answer. {reason}.")
    return AnalyticsEngineRefusedError(f"Analytics Engine could not be asked, check the connection's host. {reason}.")


def _refusal_or_fault(response: requests.Response, account: _Account) -> AnalyticsEngineError:
    status = response.status_code
    text = _beginning(response, account)
    body, request_id, query_id = text[:MAX_BODY], response.headers.get("cf-ray"), _query_id(response, text)
    about: dict[str, Any] = {"status": status, "body": body, "request_id": request_id, "query_id": query_id}
    ids = f"request {request_id}" + (f", query {query_id}" if query_id else "")
    said = f"Analytics Engine answered {status} ({ids}): {body or 'nothing'}."
    if status == HTTPStatus.TOO_MANY_REQUESTS and _QUERY_LIMIT.search(body):
        return AnalyticsEngineRefusedError(f"{said} The query is too heavy: narrow its range.", **about)
    if is_transient_http_status(status) and status not in _PERMANENT:
        error = AnalyticsEngineUnavailableError(said, **about)
        error.retry_after = parse_retry_after(response.headers.get("Retry-After"))
        return error
    return AnalyticsEngineRefusedError(f"{said} {_ADVICE.get(status, '')}".rstrip(), **about)


def _as_refused(error: AnalyticsEngineError) -> AnalyticsEngineRefusedError:
    return AnalyticsEngineRefusedError(
        f"{error} It did so twice: the query is too heavy, narrow its range.",
        status=error.status,
        body=error.body,
        request_id=error.request_id,
        query_id=error.query_id,
    )


def _query_id(response: requests.Response, text: str) -> str | None:
    in_headers = (response.headers.get(name) for name in _QUERY_ID_HEADERS)
    found = next(filter(None, in_headers), None)
    if found is None and (match := _QUERY_ID.search(text)):
        found = match[1]
    return found


def _beginning(response: requests.Response, account: _Account) -> str:
    try:
        beginning = b"".join(islice(response.iter_content(1024), 16))
    except requests.RequestException:
        return ""
    return " ".join(account.redact(beginning.decode(errors="replace")).split())
