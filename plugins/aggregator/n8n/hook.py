"""Start n8n workflows through webhooks: one execution for each delivery, or an error that says whether it started."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
from airflow.sdk import BaseHook
from tenacity import Retrying, wait_exponential

from aggregator.core import connections
from aggregator.core.errors import PermanentError, TransientError, UnknownConnectionError
from aggregator.core.retrying import retry_options
from aggregator.core.settings import KpiSettings
from aggregator.n8n.addresses import origin_of, parse_origins, parse_url, resolve
from aggregator.n8n.errors import N8nError, N8nNotRegisteredError, N8nRefusedError, N8nUnavailableError, N8nUnknownError
from aggregator.n8n.responses import MAY_HAVE_STARTED, Response, check

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

ATTEMPTS = 4
"""Maximum number of requests for one delivery, with waits of 1, 2 and 4 seconds between them."""

RETRIED = (TransientError, N8nNotRegisteredError)
"""Errors after which a request is repeated."""

CONNECT_SECONDS = 10.0

MAX_BODY = 16 * 1024
"""Number of bytes of a response body that are read."""

_KEY = re.compile(r"[!-~]+")
_NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For http: httpx would load the certificate authorities, which takes 0.1 s."""


@dataclass(frozen=True)
class Delivery:
    """A webhook call that n8n accepted. The workflow was started, but it may not be finished.

    Attributes:
        status: HTTP status, 2xx.
        retry_count: Number of requests after the first one.
    """

    status: int
    retry_count: int


@dataclass(frozen=True)
class _Access:
    """The API key, and the origins that may receive it."""

    key: str | None = field(repr=False)
    origins: frozenset[str]

    def redact(self, text: str) -> str:
        return text.replace(self.key, "***") if self.key else text


class N8nHook(BaseHook):
    """Start n8n workflows through their webhooks.

    The connection holds the API key of the webhooks as ``password`` (fallback: ``N8N_API_KEY``) and ``allowed_origins``
    in its extra, such as ``["https://n8n.example.com"]``. Only these origins receive the key, and only these may have
    an address that is not public. So a URL in the registry can neither collect the key nor reach a cloud's metadata,
    this machine or its network. Without a connection there is no key, and only public addresses are called.

    The host is resolved once, its addresses are checked, and the request is sent to a checked address. Proxies are not
    used, because they would resolve the host again. Redirects are not followed.
    """

    default_conn_name = "n8n"

    def __init__(
        self,
        conn_id: str = default_conn_name,
        *,
        sleep: Callable[[float], None] = time.sleep,
        timeouts: tuple[float, float] | None = None,
    ) -> None:
        """Store the arguments. The connection is read by the first request.

        Args:
            conn_id: Airflow connection.
            sleep: Function that waits for a number of seconds.
            timeouts: Connect and read timeout in seconds. Default: 10, and ``N8N_READ_TIMEOUT_SECONDS``.
        """
        super().__init__()
        self.conn_id = conn_id
        self.sleep = sleep
        self.timeouts = timeouts
        self._lookups: dict[str, asyncio.Future[list[str]]] = {}

    def post(
        self, url: str, payload: Mapping[str, Any], *, idempotency_key: str, while_unavailable: bool = True
    ) -> Delivery:
        """Send ``payload`` to a webhook. Repeat the request only if the workflow was certainly not started.

        Args:
            url: URL of the webhook, ``http`` or ``https``, without credentials.
            payload: Sent as JSON, unchanged.
            idempotency_key: Sent as ``Idempotency-Key``. Use the same key for all attempts to start the same thing.
            while_unavailable: Whether to repeat the request while n8n is unavailable. Without this, only a webhook that
                is not registered is requested again.

        Returns:
            The accepted call.

        Raises:
            N8nRefusedError: n8n or this hook refused the request, the workflow ran and failed, or n8n did not have the
                webhook in `ATTEMPTS` requests. The text contains n8n's message.
            N8nUnavailableError: n8n was unreachable, starting or busy in `ATTEMPTS` requests.
            N8nUnknownError: The request was sent, and n8n may have started the workflow.
            PermanentError: The connection or its key is invalid.
            TypeError, ValueError: The payload cannot be written as JSON.
        """
        sent = 0

        async def key() -> str:
            return idempotency_key

        def attempt() -> int:
            nonlocal sent
            sent += 1
            return asyncio.run(self.request(url, payload, key))

        try:
            status = Retrying(
                **retry_options(
                    attempts=ATTEMPTS,
                    wait=wait_exponential(),
                    sleep=self.sleep,
                    warn=self.log.warning,
                    retried=RETRIED if while_unavailable else N8nNotRegisteredError,
                )
            )(attempt)
        except N8nError as error:
            error.retry_count = sent - 1
            raise
        return Delivery(status, sent - 1)

    async def request(self, url: str, payload: Mapping[str, Any], claim: Callable[[], Awaitable[str]]) -> int:
        """Send one request on a new connection, because a server may close an idle one while the request is written.

        Args:
            url: As for :meth:`post`.
            payload: As for :meth:`post`.
            claim: Returns the idempotency key. It is awaited when the connection is open, before a byte of the request
                is written. If it raises, nothing is sent, and its error is raised unchanged.

        Returns:
            The HTTP status, 2xx.

        Raises:
            AggregatorError: As for :meth:`post`.
        """
        target = parse_url(url)
        access, origin = self._access, origin_of(target)
        allowed = origin in access.origins
        content = json.dumps(payload, ensure_ascii=False, allow_nan=False).encode()
        headers = {
            "Accept-Encoding": "identity",  # a compressed body could be larger than `MAX_BODY`
            "Content-Type": "application/json",
            "Host": target.netloc.decode(),
        }
        if allowed and access.key:
            headers["Authorization"] = f"Bearer {access.key}"

        async def trace(event: str, info: dict[str, Any]) -> None:
            if event == "http11.send_request_headers.started":
                key = quote(await claim(), safe="/_-.:")
                info["request"].headers.append((b"Idempotency-Key", key.encode()))

        addresses = await self._resolve(target, origin, allowed=allowed)
        connect, read = self._timeouts
        timeout = httpx.Timeout(read, connect=connect)
        verify = self._certificates if target.scheme == "https" else _NO_CERTIFICATES
        async with httpx.AsyncClient(timeout=timeout, verify=verify, trust_env=False) as client:
            requests = [
                client.build_request(
                    "POST",
                    target.copy_with(host=address),
                    headers=headers,
                    content=content,
                    extensions={"sni_hostname": target.raw_host.decode(), "trace": trace},
                )
                for address in addresses
            ]
            response = await _first_response(client, requests, origin)
            try:
                check(await _read(response, access, read), origin, key_withheld=access.key is not None and not allowed)
            finally:
                await response.aclose()
        return response.status_code

    async def _resolve(self, url: httpx.URL, origin: str, *, allowed: bool) -> list[str]:
        # In a thread, and one for each origin: lookups of a host that hangs must not take the threads of the others.
        # Not one for each host: its origins may differ in whether private addresses are allowed.
        if origin not in self._lookups:
            self._lookups[origin] = asyncio.ensure_future(asyncio.to_thread(resolve, url, allowed=allowed))
            self._lookups[origin].add_done_callback(lambda _: self._lookups.pop(origin))
        return await self._lookups[origin]

    @cached_property
    def _timeouts(self) -> tuple[float, float]:
        return self.timeouts or (CONNECT_SECONDS, KpiSettings.load().n8n_read_timeout_seconds)

    @cached_property
    def _certificates(self) -> ssl.SSLContext:
        # Loading the certificate authorities takes 0.1 s.
        return httpx.create_ssl_context()

    @cached_property
    def _access(self) -> _Access:
        fallback = KpiSettings.load().n8n_api_key
        key = fallback.get_secret_value() if fallback else None
        origins: Any = []
        try:
            connection = connections.get(self.conn_id)
        except UnknownConnectionError:
            self.log.info("connection=%s missing: no API key is sent, and only public hosts are called", self.conn_id)
        else:
            key = connection.password or key
            origins = connection.extra_dejson.get("allowed_origins", [])
        if key and not _KEY.fullmatch(key):
            msg = (
                f"The API key in connection {self.conn_id!r} (or N8N_API_KEY) contains characters that a header cannot "
                "have. Nothing was sent. Correct the key."
            )
            raise PermanentError(msg)
        return _Access(key, parse_origins(origins, self.conn_id))


async def _first_response(client: httpx.AsyncClient, requests: list[httpx.Request], origin: str) -> httpx.Response:
    """The response from the first address that accepts a connection. Its body is not read."""
    for number, request in enumerate(requests, start=1):
        try:
            return await client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            if number == len(requests):
                raise _not_connected(error, origin) from None
        except httpx.HTTPError as error:
            slow = isinstance(error, httpx.ReadTimeout)
            hint = " If n8n needs longer to respond, raise N8N_READ_TIMEOUT_SECONDS." if slow else ""
            msg = f"No response from {origin} to the request ({type(error).__name__}). {MAY_HAVE_STARTED}{hint}"
            raise N8nUnknownError(msg) from None
    raise AssertionError


def _not_connected(error: httpx.TransportError, origin: str) -> N8nError:
    cause: BaseException = error
    # The client's own text is only "All connection attempts failed".
    while deeper := cause.__cause__ or cause.__context__:
        cause = deeper
        if isinstance(cause, ssl.SSLCertVerificationError):
            msg = f"The certificate of {origin} is not valid: {error}. Nothing was sent. Replace the certificate."
            return N8nRefusedError(msg)
    reason = str(cause) or type(error).__name__
    msg = f"Connecting to {origin} failed: {reason}. Nothing was sent. Check that n8n is running and reachable."
    return N8nUnavailableError(msg)


async def _read(response: httpx.Response, access: _Access, seconds: float) -> Response:
    """Read the parts of a response that the rules use. The body of a success is read only if it is a page."""
    content_type = response.headers.get("Content-Type", "")
    body, complete = b"", True
    if not response.is_success or "html" in content_type:
        body, complete = await _read_body(response, seconds)
    return Response(
        response.status_code,
        content_type,
        text=access.redact(body.decode(errors="replace")),
        complete=complete,
        retry_after=response.headers.get("Retry-After"),
        location=response.headers["Location"] if response.has_redirect_location else None,
    )


async def _read_body(response: httpx.Response, seconds: float) -> tuple[bytes, bool]:
    """Up to `MAX_BODY` bytes, and False if the connection broke before."""
    body = b""
    deadline = time.monotonic() + seconds
    try:
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) >= MAX_BODY or time.monotonic() > deadline:
                break
    except httpx.HTTPError:
        return body, False
    return body, True
