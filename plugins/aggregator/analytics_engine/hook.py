"""Hook for the SQL API of Cloudflare Workers Analytics Engine.

Sources: https://developers.cloudflare.com/analytics/analytics-engine/sql-api/, its sibling ``limits/`` for retention,
and https://developers.cloudflare.com/fundamentals/api/reference/limits/ for the rate of requests. Pages below
https://developers.cloudflare.com/analytics/sql-api/ describe another API with another dialect and other limits.
"""

from __future__ import annotations

import re
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote

import requests
from airflow.sdk import BaseHook
from requests.auth import AuthBase
from tenacity import Retrying, wait_exponential_jitter

from aggregator.analytics_engine import dialect
from aggregator.analytics_engine.errors import (
    AnalyticsEngineRefusedError,
    AnalyticsEngineUnavailableError,
    as_permanent,
    connection_error,
    interrupted,
    response_error,
)
from aggregator.analytics_engine.result import AnalyticsEngineResult
from aggregator.core import connections
from aggregator.core.errors import PermanentError
from aggregator.core.retrying import LONGEST_WAIT, retry_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from airflow.sdk import Connection
    from tenacity.wait import wait_base

    from aggregator.analytics_engine.dialect import Parameter, Query

RETENTION = timedelta(days=89)
"""The earliest start of a window, before now. Cloudflare keeps three months without defining them: this is the shortest
length of three calendar months. A window refused too early keeps its stored rows. A window read too late would replace
them by what the source has left."""

TIMEOUTS = (10.0, 90.0)
"""Seconds to connect, and to wait for the next bytes. A query may run for 60 seconds."""

_CHUNK = 64 * 1024
_HOST = "https://api.cloudflare.com"
_TOKEN = re.compile(r"[!-~]+")


class AnalyticsEngineHook(BaseHook):
    """Runs queries on the SQL API of Workers Analytics Engine.

    The connection has these fields:

    - ``host``: Cloudflare's API by default, with or without a scheme.
    - ``schema``: the scheme if ``host`` has none, ``https`` by default.
    - ``port``: optional.
    - ``password``: the API token.
    - ``extra``: ``{"account_id": "…"}``.

    The dialect is checked before a query is sent. Transient errors are retried until the first row is returned. After
    that they are raised, and the task's retry handles them.
    """

    default_conn_name = "analytics_engine"

    requests_sent = 0
    """Number of requests, retries included."""

    def __init__(
        self,
        conn_id: str = default_conn_name,
        *,
        attempts: int = 4,
        wait: wait_base | None = None,
        sleep: Callable[[float], None] = time.sleep,
        timeouts: tuple[float, float] = TIMEOUTS,
    ) -> None:
        """Set the options of requests.

        Args:
            conn_id: Airflow connection.
            attempts: Maximum number of requests per query.
            wait: Seconds between attempts, unless ``Retry-After`` is longer; by default 1, 2, 4 and some jitter.
            sleep: Waits for a number of seconds.
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
            sql: One statement that ends with ``FORMAT JSON``, with placeholders as in `dialect.bind`.
            parameters: Values of the placeholders.

        Yields:
            The rows. A range or a dataset without rows may have no columns either.

        Raises:
            DialectError: The query is not in the dialect; nothing was sent.
            AnalyticsEngineRefusedError: The query, the token or the account is refused, or the query exceeds a limit.
            AnalyticsEngineUnavailableError: All attempts failed.
            TransientError: The response ended after the first row.
            PermanentError: The connection is incomplete, or a value does not have its column's type.
        """
        query = dialect.parse(dialect.bind(sql, parameters or {}))
        if query.format != "JSON":
            msg = f"The hook reads FORMAT JSON, not {query.format}. Nothing was sent. End the query with FORMAT JSON."
            raise PermanentError(msg)
        if query.unreadable:
            raise PermanentError(
                f"The hook cannot read {query.unreadable}, which the query selects. Nothing was sent. Select numbers, "
                "Strings or times in UTC. Convert times with a time zone by toUnixTimestamp() or formatDateTime()."
            )
        with ExitStack() as resources:
            yield self._rows(resources, query)

    def require_retained(self, start: datetime) -> None:
        """Refuse a window whose oldest rows, at its aware start, may be deleted. Nothing else depends on the clock.

        Raises:
            PermanentError: The window starts more than `RETENTION` ago.
        """
        oldest = datetime.now(UTC) - RETENTION
        if start < oldest:
            raise PermanentError(
                f"The window starts at {start:%Y-%m-%d %H:%M:%S %Z}, but Analytics Engine keeps three months and may "
                f"have deleted rows before {oldest:%Y-%m-%d}. Nothing was read, and stored rows are unchanged. Choose "
                "a later window."
            )

    def _rows(self, resources: ExitStack, query: Query) -> AnalyticsEngineResult:
        try:
            return self._run(resources, f"{query.text.rstrip()} FORMAT JSON")
        except AnalyticsEngineRefusedError as error:
            if not error.is_about_missing_types or not query.probes or not self._is_empty(resources, query.probes):
                raise
            self.log.warning("Analytics Engine returned 422, and a count found no rows. The result has no rows.")
            return AnalyticsEngineResult.empty()

    def _is_empty(self, resources: ExitStack, probes: tuple[str, ...]) -> bool:
        """Whether a query failed on missing types because its range has no rows, and not because of a mistake.

        Columns have types only where there are rows, so a condition on a column can fail like the query itself. Every
        dataset has ``timestamp``: if the probe on it alone fails as well, there are no rows.
        """
        for probe in probes:
            try:
                return next(self._run(resources, probe), (0,)) == (0,)
            except AnalyticsEngineRefusedError as error:
                if not error.is_about_missing_types:
                    raise
        return True

    def _run(self, resources: ExitStack, text: str) -> AnalyticsEngineResult:
        gateway_timeouts = 0

        def attempt() -> AnalyticsEngineResult:
            nonlocal gateway_timeouts
            try:
                return self._send(resources, text)
            except AnalyticsEngineUnavailableError as error:
                gateway_timeouts += error.status == HTTPStatus.GATEWAY_TIMEOUT
                if gateway_timeouts > 1:
                    raise as_permanent(error) from None
                raise

        options = retry_options(attempts=self.attempts, wait=self.wait, sleep=self.sleep, warn=self.log.warning)
        return Retrying(**options)(attempt)

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
                raise connection_error(error, account.redact) from None
            attempt.enter_context(response)
            if response.status_code != HTTPStatus.OK:
                raise response_error(response, account.redact)
            result = AnalyticsEngineResult(_body(response))
            resources.push(attempt.pop_all())
        return result

    @cached_property
    def _account(self) -> _Account:
        return _Account.of(self.conn_id)


@dataclass(frozen=True)
class _Account(AuthBase):
    """URL and token of an account. It is an authentication of requests, so that no ``.netrc`` replaces the token."""

    url: str
    token: str = field(repr=False)

    @classmethod
    def of(cls, conn_id: str) -> _Account:
        """Read the account from a connection, or raise PermanentError if it has no usable token or no account."""
        connection = connections.get(conn_id)
        token = connection.password or ""
        if not _TOKEN.fullmatch(token):
            raise PermanentError(
                f"Connection {conn_id!r} has no valid API token as its password. Nothing was sent. Set it to a "
                "Cloudflare API token (permission: Account Analytics Read)."
            )
        account_id = connection.extra_dejson.get("account_id")
        if not isinstance(account_id, str) or not account_id:
            msg = f'Connection {conn_id!r} has no account id. Nothing was sent. Set its extra to {{"account_id": "…"}}.'
            raise PermanentError(msg)
        path = f"/client/v4/accounts/{quote(account_id, safe='')}/analytics_engine/sql"
        return cls(base_url(connection) + path, token)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the token to a request."""
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request

    def redact(self, text: str) -> str:
        """Replace the token in a text by asterisks."""
        return text.replace(self.token, "***")


def base_url(connection: Connection) -> str:
    """Scheme, host and port of the SQL API."""
    host = (connection.host or _HOST).rstrip("/")
    if "://" not in host:
        host = f"{connection.schema or 'https'}://{host}"
    return f"{host}:{connection.port}" if connection.port else host


def _body(response: requests.Response) -> Iterator[bytes]:
    try:
        yield from response.iter_content(_CHUNK)
    except requests.RequestException as error:
        raise interrupted(error, response) from None
