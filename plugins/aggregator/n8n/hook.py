"""n8n's webhooks: exactly one execution for each delivery, or an error that says what is known (spec: KPI dispatch).

The answers were recorded on n8n 2.41. Source for its webhooks: https://docs.n8n.io/integrations/builtin/core-nodes/n8n-nodes-base.webhook/
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import time
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import httpx
from airflow.sdk import BaseHook
from tenacity import wait_exponential

from aggregator.core import connections
from aggregator.core.errors import (
    AggregatorError,
    PermanentError,
    TransientError,
    UnknownConnectionError,
    parse_retry_after,
)
from aggregator.core.retrying import retrying
from aggregator.core.settings import KpiSettings
from aggregator.n8n.addresses import is_public

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ATTEMPTS = 4
"""How often a delivery is tried at most: at once, and after 1, 2 and 4 seconds (spec: KPI dispatch, outcome)."""

CONNECT_SECONDS = 10.0

MAX_MESSAGE = 500
"""Characters that an error keeps of what n8n said."""

_MAY_RUN = "n8n may have started the workflow, so it is not sent again: check n8n's executions."
_MAX_BODY = 16 * 1024
_WEB_SERVER_DOWN, _UNREACHABLE, _HANDSHAKE_FAILED, _INVALID_CERTIFICATE, _ORIGIN_ERROR = 521, 523, 525, 526, 530
_UNKNOWN_ERROR, _CONNECTION_TIMED_OUT, _TIMED_OUT = 520, 522, 524  # Cloudflare's, which the standard library lacks
_RETRIED: Final = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_EARLY,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
        *(_WEB_SERVER_DOWN, _UNREACHABLE, _HANDSHAKE_FAILED, _INVALID_CERTIFICATE, _ORIGIN_ERROR),
    }
)
"""Nothing was started."""

_UNKNOWN: Final = frozenset(
    {
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.GATEWAY_TIMEOUT,
        *(_UNKNOWN_ERROR, _CONNECTION_TIMED_OUT, _TIMED_OUT),
    }
)
"""A proxy may have delivered the request, and n8n finishes a workflow whose caller is gone."""

STARTING_UP: Final = "n8n is starting up. Please wait"
"""The page with which n8n answers every request with status 200 until its migrations are done."""

_NOT_REGISTERED = "not registered"
_PROBLEM = "There was a problem executing the workflow"
"""What n8n 2.41 says: `dist/abstract-server.js`, `dist/webhooks/webhook-helpers.js` of its npm package."""

_KEY = re.compile(r"[!-~]+")
_TAG = re.compile(r"<(?:style|script)\b.*?</(?:style|script)>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_SCHEMES: Final = frozenset({"http", "https"})


class N8nError(AggregatorError):
    """A workflow was not started, as far as it is known.

    Attributes:
        status: HTTP status of the last answer; None if there was none.
        retry_count: How many requests followed the first one.
    """

    status: int | None = None
    retry_count: int = 0


class N8nRefusedError(N8nError, PermanentError):
    """The workflow was not started, or ran and failed; the same request would end in the same way."""


class N8nUnavailableError(N8nError, TransientError):
    """The workflow was not started, and the same request may start it later."""


class _NotRegisteredError(N8nUnavailableError):
    """n8n has no such webhook: for a second while a workflow is republished, or indefinitely."""


class N8nUnknownError(N8nError, PermanentError):
    """The request was sent, and the workflow may have been started, so it is not sent again."""


@dataclass(frozen=True)
class Delivery:
    """A webhook that n8n has accepted. It says that a workflow was started, not that it is done.

    Attributes:
        status: HTTP status, 2xx.
        retry_count: How many requests followed the first one.
    """

    status: int
    retry_count: int


@dataclass(frozen=True)
class _Access:
    """What the connection allows."""

    key: str | None = field(repr=False)
    origins: frozenset[str]

    def redact(self, text: str) -> str:
        return text.replace(self.key, "***") if self.key else text


class N8nHook(BaseHook):
    """Starts n8n workflows through their webhooks.

    The connection has the webhooks' API key as ``password`` (``N8N_API_KEY`` stands in for it), and in its extra
    ``allowed_origins``, a list such as ``["https://n8n.example.com"]``. Only these are sent the key, and only these may
    be at an address that is not public: a URL that somebody wrote into a registry can neither collect the key nor reach
    the cloud's metadata, this machine or its neighbours. Without a connection there is no key and no such origin.

    A name is resolved once, its addresses are checked, and the request goes to the one that was checked; a proxy, which
    would resolve it again, is not used. Redirects are not followed.
    """

    default_conn_name = "n8n"

    def __init__(
        self,
        conn_id: str = default_conn_name,
        *,
        sleep: Callable[[float], None] = time.sleep,
        timeouts: tuple[float, float] | None = None,
    ) -> None:
        """Remember how to ask; nothing is read or sent yet.

        Args:
            conn_id: Airflow connection.
            sleep: Waits that many seconds.
            timeouts: Seconds to connect, and to wait for the response; by default 10, and ``N8N_READ_TIMEOUT_SECONDS``.
        """
        super().__init__()
        self.conn_id = conn_id
        self.sleep = sleep
        self.timeouts = timeouts

    def post(self, url: str, payload: Mapping[str, Any], *, idempotency_key: str) -> Delivery:
        """Start a workflow: send ``payload`` to a webhook, again only where it is sure that nothing was started.

        Args:
            url: The webhook's, ``http`` or ``https``, without credentials.
            payload: Sent as JSON, untouched.
            idempotency_key: The same for every attempt to start the same thing; sent as ``Idempotency-Key``.

        Returns:
            That n8n accepted it.

        Raises:
            N8nRefusedError: n8n or this hook refused it, the workflow ran and failed, or n8n did not know the webhook
                `ATTEMPTS` times. The text has n8n's own message.
            N8nUnavailableError: n8n could not be reached, was starting or was busy, `ATTEMPTS` times.
            N8nUnknownError: The request was sent, and the workflow may have been started.
            PermanentError: The connection or its key is not what this hook needs.
            TypeError, ValueError: The payload cannot be written as JSON.
        """
        target = _parsed(url)
        headers = {
            "Accept-Encoding": "identity",  # of an answer, no more than its beginning is read and kept
            "Content-Type": "application/json",
            "Idempotency-Key": quote(idempotency_key, safe="/_-.:"),
        }
        content = json.dumps(payload, ensure_ascii=False, allow_nan=False).encode()
        sent = 0

        def attempt() -> int:
            nonlocal sent
            sent += 1
            return self._send(target, headers, content)

        try:
            again = retrying(attempts=ATTEMPTS, wait=wait_exponential(), sleep=self.sleep, warn=self.log.warning)
            status = again(attempt)
        except _NotRegisteredError as error:
            refused = N8nRefusedError(str(error))
            refused.status, refused.retry_count = error.status, sent - 1
            raise refused from None
        except N8nError as error:
            error.retry_count = sent - 1
            raise
        return Delivery(status, sent - 1)

    def _send(self, url: httpx.URL, headers: dict[str, str], content: bytes) -> int:
        access, origin = self._access, _origin(url)
        trusted = origin in access.origins
        addresses = _resolve(url)
        if not trusted:
            _refuse_private(origin, addresses)
        headers = {**headers, "Host": url.netloc.decode()}
        if trusted and access.key:
            headers["Authorization"] = f"Bearer {access.key}"
        connect, read = self.timeouts or (CONNECT_SECONDS, KpiSettings.load().n8n_read_timeout_seconds)
        timeout = httpx.Timeout(read, connect=connect)
        with httpx.Client(timeout=timeout, verify=_certificates(url), trust_env=False) as client:
            requests = [
                client.build_request(
                    "POST",
                    url.copy_with(host=address),
                    headers=headers,
                    content=content,
                    extensions={"sni_hostname": url.raw_host.decode()},
                )
                for address in addresses
            ]
            with closing(_first_answer(client, requests, origin)) as response:
                _judge(response, origin, access, trusted=trusted, seconds=read)
                return response.status_code

    @cached_property
    def _access(self) -> _Access:
        fallback = KpiSettings.load().n8n_api_key
        key = fallback.get_secret_value() if fallback else None
        origins: Any = []
        try:
            connection = connections.get(self.conn_id)
        except UnknownConnectionError:
            self.log.info("There is no connection %s: no key is sent, and only public addresses are.", self.conn_id)
        else:
            key = (connection.password or "").strip() or key
            origins = connection.extra_dejson.get("allowed_origins", [])
        if key and not _KEY.fullmatch(key):
            msg = f"The key of connection {self.conn_id!r} (or N8N_API_KEY) has characters that no key has; correct it."
            raise PermanentError(msg)
        return _Access(key, frozenset(_allowed(origins, self.conn_id)))


def _parsed(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, TypeError, ValueError):
        url = httpx.URL()
    if url.scheme not in _SCHEMES or not url.host or b"%" in url.raw_host:
        msg = "The webhook's URL is not one of http or https with a host; nothing was sent. Correct it."
        raise N8nRefusedError(msg)
    if url.userinfo:
        msg = f"The webhook's URL at {_origin(url)} has credentials in it; nothing was sent. Take them out of the URL."
        raise N8nRefusedError(msg)
    return url


def _origin(url: httpx.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode()}"


def _allowed(origins: Any, conn_id: str) -> Iterator[str]:
    for origin in origins if isinstance(origins, list) else [""]:
        try:
            url = httpx.URL(origin)
        except (httpx.InvalidURL, TypeError, ValueError):
            url = httpx.URL()
        if url.scheme not in _SCHEMES or not url.host or url.userinfo or url.raw_path != b"/":
            msg = (
                f"The extra of connection {conn_id!r} has allowed_origins that are not a list of scheme, host and, if "
                """it is not the scheme's own, port. Set it to {"allowed_origins": ["https://n8n.example.com"]}."""
            )
            raise PermanentError(msg)
        yield _origin(url)


def _certificates(url: httpx.URL) -> ssl.SSLContext:
    # Loading the authorities takes a tenth of a second.
    return httpx.create_ssl_context() if url.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _resolve(url: httpx.URL) -> list[str]:
    """The addresses of a URL's host, the preferred one first."""
    try:
        found = socket.getaddrinfo(url.raw_host.decode(), None, type=socket.SOCK_STREAM)
    except OSError as error:
        msg = f"The host of {_origin(url)} cannot be resolved: {error.strerror or error}. Nothing was sent."
        raise N8nUnavailableError(msg) from None
    except UnicodeError:
        msg = f"The host of {_origin(url)} is no host name; nothing was sent. Correct the webhook's URL."
        raise N8nRefusedError(msg) from None
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


def _refuse_private(origin: str, addresses: Sequence[str]) -> None:
    if private := [address for address in addresses if not is_public(address)]:
        msg = (
            f"{origin} is at {private[0]}, which is no public address; nothing was sent. If this is your n8n, add "
            f"{origin} to allowed_origins in the extra of the connection."
        )
        raise N8nRefusedError(msg)


def _first_answer(client: httpx.Client, requests: Sequence[httpx.Request], origin: str) -> httpx.Response:
    """The answer of the first address that can be connected to; its body is not read."""
    for number, request in enumerate(requests, start=1):
        try:
            return client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            if number == len(requests):
                raise _not_connected(error, origin) from None
        except httpx.HTTPError as error:
            slow = isinstance(error, httpx.ReadTimeout)
            hint = " If n8n needs longer to respond, raise N8N_READ_TIMEOUT_SECONDS." if slow else ""
            msg = f"{origin} was sent the request, and no answer came ({type(error).__name__}). {_MAY_RUN}{hint}"
            raise N8nUnknownError(msg) from None
    raise AssertionError


def _not_connected(error: httpx.TransportError, origin: str) -> N8nError:
    cause: BaseException | None = error
    while cause and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    if cause:
        return N8nRefusedError(f"{origin} has no valid certificate: {error}. Nothing was sent.")
    reason = str(error) or type(error).__name__
    return N8nUnavailableError(f"{origin} cannot be connected to: {reason}. Nothing was sent.")


def _judge(response: httpx.Response, origin: str, access: _Access, *, trusted: bool, seconds: float) -> None:
    """Raise the error that a response stands for, if it is one."""
    status, content_type = response.status_code, response.headers.get("Content-Type", "")
    is_html = "html" in content_type
    if response.is_success:
        if is_html:
            _judge_page(response, origin, seconds)
        return
    body, _ = _beginning(response, seconds)
    text = access.redact(body.decode(errors="replace"))
    is_json, words = _words(text, is_html=is_html)
    said = f"n8n at {origin} answered {status}: {words or 'nothing'}"
    if response.has_redirect_location:
        target = response.headers["Location"]
        said = f"{origin} answered {status}, a redirect to {_host(target)}, which is not followed"
    not_found = status == HTTPStatus.NOT_FOUND
    error: N8nError
    if status in _RETRIED or (not_found and not is_json and (is_html or "text/plain" in content_type)):
        error = N8nUnavailableError(f"{said}.", retry_after=parse_retry_after(response.headers.get("Retry-After")))
    elif not_found and is_json and _NOT_REGISTERED in words:
        error = _NotRegisteredError(f"{said}.")
    elif status in _UNKNOWN or (status == HTTPStatus.INTERNAL_SERVER_ERROR and _PROBLEM in words):
        error = N8nUnknownError(f"{said}. {_MAY_RUN}")
    elif status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN} and access.key and not trusted:
        error = N8nRefusedError(f"{said}. The key was not sent: {origin} is not in the connection's allowed_origins.")
    else:
        error = N8nRefusedError(f"{said}.")
    error.status = status
    raise error


def _judge_page(response: httpx.Response, origin: str, seconds: float) -> None:
    """Tell a workflow's own page from the one that n8n sends with status 200 before it can start workflows."""
    body, whole = _beginning(response, seconds)
    text = body.decode(errors="replace").strip()
    error: N8nError
    if text == STARTING_UP:
        error = N8nUnavailableError(f"n8n at {origin} is starting: {text}. Nothing was started.")
    elif not whole and STARTING_UP.startswith(text):
        error = N8nUnknownError(f"{origin} answered {response.status_code} and the connection broke. {_MAY_RUN}")
    else:
        return
    error.status = response.status_code
    raise error


def _words(text: str, *, is_html: bool) -> tuple[bool, str]:
    """What n8n says in the body of an error: its message and hint, or the text of the page; and whether it is JSON."""
    if is_html:
        text = _TAG.sub(" ", text)
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        answer = None
    if isinstance(answer, dict):
        words = [answer.get("message"), answer.get("hint")]
        text = " ".join(word for word in words if isinstance(word, str)) or text
    printable = "".join(character if character.isprintable() else " " for character in text)
    return isinstance(answer, dict), " ".join(printable.split())[:MAX_MESSAGE].rstrip(".")


def _beginning(response: httpx.Response, seconds: float) -> tuple[bytes, bool]:
    """The first bytes of a body, and whether the connection lasted until then."""
    body = b""
    deadline = time.monotonic() + seconds
    try:
        for chunk in response.iter_raw():
            body += chunk
            if len(body) >= _MAX_BODY or time.monotonic() > deadline:
                break
    except httpx.HTTPError:
        return body, False
    return body, True


def _host(location: str) -> str:
    try:
        return httpx.URL(location).host or "the same host"
    except httpx.InvalidURL:
        return "no valid URL"
