"""The pass: sends all KPIs of a run concurrently, before the task instance of each KPI shows its outcome (decision 8).

A KPI is claimed when its connection is open, right before its request is written. So a killed pass leaves ``unknown``
only the KPIs whose requests were written, at most ``KPI_REQUESTS_AT_ONCE`` for each n8n.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from uuid import uuid4

from psycopg.pq import TransactionStatus
from tenacity import AsyncRetrying, wait_exponential

from aggregator.core.errors import AggregatorError, TransientError, first_sentence
from aggregator.core.retrying import retry_options
from aggregator.kpi import jobs
from aggregator.n8n.addresses import origin_of, parse_url
from aggregator.n8n.errors import N8nRefusedError, N8nUnavailableError, N8nUnknownError
from aggregator.n8n.hook import ATTEMPTS, RETRIED, N8nHook
from aggregator.postgres.hook import PostgresTransactionHook

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import psycopg
    from airflow.sdk import Context
    from psycopg.rows import TupleRow

    from aggregator.kpi.payload import Job
    from aggregator.kpi.registry import Kpi

    Cursor = psycopg.Cursor[TupleRow]

T = TypeVar("T")
Outcome = Literal["triggered", "failed", "unknown"]

log = logging.getLogger(__name__)

TIME_LIMIT = 60.0
"""Seconds after which the pass starts no request. It then waits for the responses to the requests it has sent."""

FAILURES_IN_A_ROW = 5
"""Number of failures after which the pass stops sending to an n8n that is unavailable."""

WAIT = wait_exponential()
"""Seconds before the second, third and fourth request for a KPI: 1, 2 and 4."""

PAUSE = 1.0
"""Seconds between two probes of such an n8n."""

CONNECTIONS = 8
"""Maximum number of database connections."""


def outcome_of(error: AggregatorError) -> tuple[Outcome, timedelta | None]:
    """Return what to record about a KPI whose request raised an error.

    Returns:
        The outcome, and the delay of the next request after a transient failure.
    """
    if isinstance(error, N8nUnknownError):
        return "unknown", None
    return "failed", (error.retry_after or timedelta()) if isinstance(error, TransientError) else None


class Gate:
    """Limits the requests to one n8n, and stops them after failures in a row: a circuit breaker.

    After that, one request at a time probes n8n, at most one in `PAUSE` seconds. The others wait for its result. If it
    succeeds, all requests are sent again.

    Args:
        origin: Scheme, host and port of n8n.
        at_once: Maximum number of concurrent requests.
    """

    def __init__(self, origin: str, at_once: int) -> None:
        self.origin = origin
        self._slots = asyncio.Semaphore(at_once)
        self._probe = asyncio.Lock()
        self._failures = 0
        self._last_error = ""
        self._next_probe = 0.0

    async def run(self, request: Callable[[], Awaitable[T]]) -> T:
        """Send a request, and return its result.

        Raises:
            N8nUnavailableError: n8n is unavailable. The request may have been left out.
            Exception: The request raised it.
        """
        async with self._slots:
            if self._is_open:
                async with self._probe:
                    if self._is_open:
                        self._require_pause_is_over()
                        return await self._counted(request)
            return await self._counted(request)

    @property
    def _is_open(self) -> bool:
        return self._failures >= FAILURES_IN_A_ROW

    def _require_pause_is_over(self) -> None:
        if time.monotonic() < self._next_probe:
            msg = f"Nothing was sent, because {self._failures} requests in a row to {self.origin} failed. The last one:"
            raise N8nUnavailableError(f"{msg} {self._last_error}")

    async def _counted(self, request: Callable[[], Awaitable[T]]) -> T:
        try:
            result = await request()
        except N8nUnavailableError as error:
            self._failures += 1
            self._last_error = str(error)
            self._next_probe = time.monotonic() + PAUSE
            raise
        except N8nRefusedError:
            self._failures = 0
            raise
        self._failures = 0
        return result


class Database:
    """Transactions of coroutines on a few connections that stay open."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="kpi-database")
        self._idle: list[psycopg.Connection] = []

    async def run(self, work: Callable[[Cursor], T]) -> T:
        """Do work in a transaction, which is committed, and return its result.

        Raises:
            AggregatorError: The database is unavailable, or refused a statement. Nothing was stored.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, work)

    def close(self) -> None:
        """Close the connections. No work may be running."""
        self._threads.shutdown(cancel_futures=True)
        for connection in self._idle:
            connection.close()

    def _run(self, work: Callable[[Cursor], T]) -> T:
        with _Hook(self._idle).task_transaction(self._context) as cursor:
            return work(cursor)


class _Hook(PostgresTransactionHook):
    """Takes idle connections, and keeps them after a transaction."""

    def __init__(self, idle: list[psycopg.Connection]) -> None:
        super().__init__(jobs.CONNECTION)
        self._idle = idle

    def connect(self) -> psycopg.Connection:
        """Return an idle connection, or open one."""
        with suppress(IndexError):
            return self._idle.pop()
        return super().connect()

    def release(self, connection: psycopg.Connection) -> None:
        """Keep a connection whose transaction has ended; close a broken one."""
        if connection.info.transaction_status is TransactionStatus.IDLE:
            self._idle.append(connection)
            return
        connection.close()
        # The server may have restarted. An outcome must not be lost because its tries get broken connections.
        while self._idle:
            with suppress(IndexError):
                self._idle.pop().close()


class NotSentError(Exception):
    """Another task sends the KPI or has sent it, or the time limit of the pass is over."""


class Sender:
    """Sends KPIs. Errors are recorded for their KPI and not raised.

    Args:
        job: The run.
        database: Database of the job records.
        at_once: Maximum number of concurrent requests to one n8n.
    """

    def __init__(self, job: Job, database: Database, *, at_once: int) -> None:
        self._job = job
        self._database = database
        self._hook = N8nHook()
        self._at_once = at_once
        self._gates: dict[str, Gate] = {}
        self._ends = 0.0
        self._outcomes: Counter[str] = Counter()

    async def send(self, kpis: Sequence[Kpi]) -> Counter[str]:
        """Send KPIs concurrently.

        Returns:
            Number of KPIs by outcome: ``triggered``, ``failed``, ``unknown``, and ``not_sent`` for those that the pass
            did not reach or that another task sends.
        """
        self._ends = time.monotonic() + TIME_LIMIT
        await asyncio.gather(*map(self._send_and_log, kpis))
        return self._outcomes

    def stop(self) -> None:
        """Start no more requests. Those that are sent are recorded."""
        self._ends = 0.0

    async def _send_and_log(self, kpi: Kpi) -> None:
        outcome: str = "not_sent"
        try:
            outcome = await self._send(kpi)
        except NotSentError:
            log.debug("Left to its own instance: kpi=%s", kpi.id)
        except Exception as error:
            # One KPI must not stop the others. Its own instance tries again.
            is_ours = isinstance(error, AggregatorError)
            log.warning(
                "KPI left to its own instance: kpi=%s error=%s", kpi.id, first_sentence(error), exc_info=not is_ours
            )
        self._outcomes[outcome] += 1

    async def _send(self, kpi: Kpi) -> Outcome:
        """Send one KPI, and repeat the request only if its workflow was certainly not started."""
        delivery = _Delivery(self._job, kpi, self._database, self._hook)
        options = retry_options(attempts=ATTEMPTS, wait=WAIT, sleep=asyncio.sleep, warn=log.debug, retried=RETRIED)

        async def attempt() -> None:
            if time.monotonic() > self._ends:
                raise NotSentError
            await delivery.attempt()

        async def attempt_at_the_gate() -> None:
            await self._gate(kpi).run(attempt)

        try:
            await AsyncRetrying(**options)(attempt_at_the_gate)
        except AggregatorError as error:
            return await delivery.fail(error)
        return "triggered"

    def _gate(self, kpi: Kpi) -> Gate:
        origin = origin_of(parse_url(kpi.webhook_url))
        if origin not in self._gates:
            self._gates[origin] = Gate(origin, self._at_once)
        return self._gates[origin]


class _Delivery:
    """The requests for one KPI, and their records."""

    def __init__(self, job: Job, kpi: Kpi, database: Database, hook: N8nHook) -> None:
        self._job = job
        self._kpi = kpi
        self._database = database
        self._hook = hook
        self._owner = ""
        self._requests = 0
        self._is_claimed = self._is_recorded = False

    async def attempt(self) -> None:
        """Send one request."""
        self._owner = uuid4().hex
        self._requests += 1
        self._is_claimed = self._is_recorded = False
        try:
            await self._hook.request(self._kpi.webhook_url, self._job.payload(self._kpi), self._claim_to_send)
        except AggregatorError as error:
            if self._is_claimed:
                outcome, retry_after = outcome_of(error)
                await self._store(partial(self._record, outcome=outcome, retry_after=retry_after, error=str(error)))
            raise
        await self._store(partial(self._record, outcome="triggered"))

    async def fail(self, error: AggregatorError) -> Outcome:
        """Record the last error, unless it is recorded."""
        outcome, retry_after = outcome_of(error)

        def claim_and_record(cursor: Cursor) -> None:
            self._claim(cursor)
            self._record(cursor, outcome=outcome, retry_after=retry_after, error=str(error))

        if not self._is_recorded:
            await self._store(claim_and_record)
        return outcome

    async def _claim_to_send(self) -> str:
        def claim(cursor: Cursor) -> str:
            self._claim(cursor)
            return jobs.read(cursor, self._job.trace_id, self._kpi.id).idempotency_key

        key = await self._database.run(claim)
        self._is_claimed = True
        return key

    def _claim(self, cursor: Cursor) -> None:
        job = self._job
        claim = jobs.claim(
            cursor,
            job.trace_id,
            self._kpi.id,
            self._owner,
            retry_group=job.retry_group,
            resend=job.resend,
            by_pass=True,
        )
        if claim is not jobs.Claim.CLAIMED:
            raise NotSentError

    def _record(self, cursor: Cursor, **what: Any) -> None:
        jobs.record(cursor, self._job.trace_id, self._kpi.id, self._owner, requests=self._requests, **what)

    async def _store(self, work: Callable[[Cursor], None]) -> None:
        # If this fails after a request, the outcome is lost and the KPI becomes unknown.
        options = retry_options(attempts=4, wait=WAIT, sleep=asyncio.sleep, warn=log.warning)
        await AsyncRetrying(**options)(self._database.run, work)
        self._requests, self._is_recorded = 0, True
