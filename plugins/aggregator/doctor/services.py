"""Checks of the external services: Analytics Engine, n8n, R2 and the receiver of alerts."""

from __future__ import annotations

import asyncio
import socket
from collections import defaultdict
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

import httpx
from tenacity import wait_none

from aggregator.alerts import notifier
from aggregator.analytics_engine import dialect
from aggregator.analytics_engine.hook import AnalyticsEngineHook, base_url
from aggregator.core import connections
from aggregator.core.errors import AggregatorError, PermanentError, UnknownConnectionError
from aggregator.core.paths import SQL
from aggregator.core.settings import AnalyticsSettings
from aggregator.doctor.rows import Row, Status, clock
from aggregator.kpi import registry
from aggregator.n8n.addresses import is_public, origin_of, parse_origins, parse_url, resolve
from aggregator.warmup.counter_store import S3CounterStore

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT = 5.0
"""Seconds to connect to a service, and to wait for its response."""

REQUESTS_AT_ONCE = 16

_WINDOW = {
    "data_interval_start": datetime(2026, 1, 1, tzinfo=UTC),
    "data_interval_end": datetime(2026, 1, 2, tzinfo=UTC),
}


def analytics_engine(conn_id: str = AnalyticsEngineHook.default_conn_name) -> Iterator[Row]:
    """Check the SQL API: the token, and the datasets of all queries below ``include/sql``."""
    yield from _reach(conn_id, base_url(connections.get(conn_id)))
    hook = AnalyticsEngineHook(conn_id, attempts=1, wait=wait_none(), timeouts=(TIMEOUT, 2 * TIMEOUT))
    with hook.stream(f"{dialect.SHOW_TABLES} FORMAT JSON") as rows:
        present = {str(row[0]) for row in rows}
    yield Row(conn_id, "token", Status.OK, "may read the account's datasets")
    files = SQL.glob("*/queries/analytics_engine/*.sql")
    used = {dialect.parse(dialect.bind(file.read_text(), _WINDOW)).dataset or "" for file in files}
    for dataset in sorted(used):
        found, advice = "has rows", ""
        if dataset not in present:
            found = "no rows in the last three months"
            advice = (
                "Correct if the product has not written yet. Otherwise check the account_id and the dataset's name."
            )
        yield Row(conn_id, f"dataset {dataset}", Status.WARNING if advice else Status.OK, found, advice)


def n8n() -> Iterator[Row]:
    """Check the KPI registry, each n8n that it names, and whether its webhooks are registered.

    The request is ``OPTIONS``, which n8n never executes. It returns the methods that are registered for the path. It
    does not check the API key.
    """
    origins: frozenset[str] = frozenset()
    try:
        connection = connections.get("n8n")
        origins = parse_origins(connection.extra_dejson.get("allowed_origins", []), "n8n")
        yield (
            Row("n8n", "key", Status.OK, "set; only a started workflow can check it")
            if connection.password
            else Row(
                "n8n",
                "key",
                Status.WARNING,
                "not set",
                "Set the password of connection n8n, unless N8N_API_KEY has it.",
            )
        )
    except UnknownConnectionError:
        advice = "Create connection n8n, unless all webhooks are public and need no key."
        yield Row("n8n", "key", Status.WARNING, "there is no connection n8n", advice)
    text = registry.load()
    if text is None:
        connections.check_backends(lambda backend: backend.get_variable(key=registry.VARIABLE))
    entries = registry.parse(text)
    names = ", ".join(f"{one.name} ({one.reason})" for one in entries.dropped)
    advice = "Correct these entries: python -m aggregator.kpi.registry show" if names else ""
    found = f"{len(entries.kpis)} active KPIs" + (f"; not sent: {names}" if names else "")
    yield Row("n8n", "registry", Status.WARNING if names else Status.OK, found, advice)
    yield from asyncio.run(_webhooks({kpi.id: kpi.webhook_url for kpi in entries.kpis}, origins))


async def _webhooks(urls: dict[str, str], origins: frozenset[str]) -> list[Row]:
    by_origin: defaultdict[str, list[str]] = defaultdict(list)
    for id_, url in urls.items():
        by_origin[origin_of(parse_url(url))].append(id_)
    limit = asyncio.Semaphore(REQUESTS_AT_ONCE)

    async def of_origin(origin: str, ids: list[str]) -> list[Row]:
        try:
            url = parse_url(origin)
            address = (await asyncio.to_thread(resolve, url, allowed=origin in origins))[0]
            async with httpx.AsyncClient(timeout=TIMEOUT, trust_env=False) as client:
                responses = await asyncio.gather(*(options(client, urls[id_], address) for id_ in ids))
        except AggregatorError as error:
            return [Row("n8n", origin, Status.FAILURE, str(error))]
        except httpx.HTTPError as error:
            found = f"not reachable ({type(error).__name__})"
            return [Row("n8n", origin, Status.FAILURE, found, "Check that n8n is running and reachable from here.")]
        return [_tls("n8n", url, address), *_date("n8n", responses[0]), _registered(origin, ids, responses)]

    async def options(client: httpx.AsyncClient, text: str, address: str) -> httpx.Response:
        url = parse_url(text)
        headers = {"Host": url.netloc.decode(), "Origin": origin_of(url)}
        sni = {"sni_hostname": url.raw_host.decode()}
        async with limit:
            return await client.request("OPTIONS", url.copy_with(host=address), headers=headers, extensions=sni)

    rows = await asyncio.gather(*(of_origin(origin, ids) for origin, ids in by_origin.items()))
    return [row for group in rows for row in group]


def _registered(origin: str, ids: list[str], responses: list[httpx.Response]) -> Row:
    methods = {
        id_: response.headers.get("Access-Control-Allow-Methods")
        if response.status_code == HTTPStatus.NO_CONTENT
        else None
        for id_, response in zip(ids, responses, strict=True)
    }
    missing = [id_ for id_, allowed in methods.items() if allowed is not None and "POST" not in allowed]
    unknown = [id_ for id_, allowed in methods.items() if allowed is None]
    check = f"webhooks at {origin}"
    if missing:
        found = f"not registered for POST: {', '.join(missing)}"
        advice = "Publish these workflows, and check the path and the method of their webhooks."
        return Row("n8n", check, Status.FAILURE, found, advice)
    if unknown:
        statuses = ", ".join(sorted({str(response.status_code) for response in responses}))
        found = f"unknown for {', '.join(unknown)}: HTTP {statuses} to OPTIONS, which a starting n8n or a proxy sends"
        advice = "Check that n8n has started. Behind such a proxy, only a run shows whether they are registered."
        return Row("n8n", check, Status.WARNING, found, advice)
    return Row("n8n", check, Status.OK, f"{len(ids)} registered for POST")


def r2() -> Iterator[Row]:
    """Check the rights on the bucket of warm-up counters, if there is one."""
    if AnalyticsSettings.load().warmup_counter_store != "r2":
        yield Row("warmup_r2", "bucket", Status.OK, "not used: WARMUP_COUNTER_STORE is postgres")
        return
    code = S3CounterStore().refused()
    found = f"may list objects, but not delete them: {code}" if code else "may list and delete objects"
    advice = "Create an access key that may read and write objects of this bucket." if code else ""
    yield Row("warmup_r2", "rights", Status.FAILURE if code else Status.OK, found, advice)


def alerts(*, send_test: bool) -> Iterator[Row]:
    """Check the receiver of alerts.

    Args:
        send_test: Whether to send a message that is marked as a test. Without it, nothing is sent to the channel.
    """
    if (secret := notifier.receiver_url()) is None:
        advice = f"Create connection {notifier.WEBHOOK}, or read alerts on the Operations page only."
        yield Row(notifier.WEBHOOK, "connection", Status.WARNING, "there is none: alerts are stored, not sent", advice)
        return
    yield from _reach(notifier.WEBHOOK, origin_of(httpx.URL(secret)))
    if not send_test:
        yield Row(notifier.WEBHOOK, "delivery", Status.OK, "not tested; --send-test-alert sends a message")
        return
    problem = notifier.post(secret, "TEST: `python -m aggregator.doctor` sent this. There is nothing to do.")
    advice = f"Check the password of connection {notifier.WEBHOOK}, the path of the webhook." if problem else ""
    status = Status.FAILURE if problem else Status.OK
    yield Row(notifier.WEBHOOK, "delivery", status, f"refused: {problem}" if problem else "accepted a test", advice)


def _reach(subject: str, origin: str) -> Iterator[Row]:
    """Check that a server responds, with TLS, and its clock. Only its origin is requested, without a secret."""
    try:
        response = httpx.head(origin, timeout=TIMEOUT)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        found = f"{origin} is not reachable ({type(error).__name__}: {error})"
        raise PermanentError(
            f"{found}. Check the host of connection {subject}, its certificate and the network."
        ) from None
    url = httpx.URL(origin)
    # Its address is needed only to judge a connection without TLS.
    address = socket.getaddrinfo(url.host, None)[0][4][0] if url.scheme == "http" else ""
    yield _tls(subject, url, str(address))
    yield from _date(subject, response)


def _tls(subject: str, url: httpx.URL, address: str) -> Row:
    origin = origin_of(url)
    if url.scheme == "https":
        return Row(subject, "connection", Status.OK, f"{origin}, TLS")
    if address and not is_public(address):
        return Row(subject, "connection", Status.OK, f"{origin}, no TLS, private address")
    return Row(
        subject, "connection", Status.FAILURE, f"{origin}, no TLS, public address", "Use https: secrets are sent."
    )


def _date(subject: str, response: httpx.Response) -> Iterator[Row]:
    try:
        date = parsedate_to_datetime(response.headers["Date"])
    except (KeyError, ValueError):
        return
    yield clock(subject, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
