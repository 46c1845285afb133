"""``GET /api/freshness``: whether every product's data is fresh, for an external monitor (spec: alerts and health).

The endpoint queries the products' databases. It works without the scheduler.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

from fastapi import APIRouter, Response

from aggregator.alerts import freshness
from aggregator.alerts.freshness import TARGETS, Freshness, Lag, State, Target
from aggregator.core.errors import PermanentError
from aggregator.core.http import Camel

_BAD = {State.STALE, State.UNKNOWN}

KEEP = 10.0
"""Seconds for which the result of a check is used by other requests."""

KEEP_WHILE_SLOW = 60.0
"""Seconds for which the last result is used while a newer check takes longer than its time limit."""

_threads = ThreadPoolExecutor(len(TARGETS), thread_name_prefix="freshness")
_checks: dict[Target, tuple[float, Future[Freshness]]] = {}
_results: dict[Target, tuple[float, Freshness]] = {}


async def check_all(within: timedelta) -> list[Freshness]:
    """Check all tables. Each has at most one check at a time, which concurrent requests share.

    So a server that drops packets holds one thread for each of its tables, however many requests there are.

    Args:
        within: Time limit. A table whose check takes longer has its last result, if that is less than
            ``KEEP_WHILE_SLOW`` old. Otherwise, it is unknown.

    Returns:
        One result for each table, in the order of ``TARGETS``.
    """
    checks = {target: asyncio.wrap_future(_start(target)) for target in TARGETS}
    await asyncio.wait(checks.values(), timeout=within.total_seconds())
    return [check.result() if check.done() else _last(target) for target, check in checks.items()]


def _last(target: Target) -> Freshness:
    at, result = _results.get(target, (-KEEP_WHILE_SLOW, Freshness(target, State.UNKNOWN)))
    return result if time.monotonic() - at < KEEP_WHILE_SLOW else Freshness(target, State.UNKNOWN)


def _check(target: Target) -> Freshness:
    at = time.monotonic()
    result = freshness.check_target(target, datetime.now(UTC))
    _results[target] = (at, result)
    return result


def _start(target: Target) -> Future[Freshness]:
    started, check = _checks.get(target, (0.0, None))
    if check is None or (check.done() and time.monotonic() - started > KEEP):
        check = _threads.submit(_check, target)
        _checks[target] = (time.monotonic(), check)
    return check


def forget() -> None:
    """Forget the results of earlier checks."""
    _checks.clear()
    _results.clear()


class TargetFreshness(Camel):
    """How fresh a table is.

    Attributes:
        target: The table.
        dag: The DAG that writes or reads the table.
        state: See :class:`aggregator.alerts.freshness.State`.
        newest: End of the data.
        waiting_since: Start of the first window whose data is missing.
        max_age_seconds: How long a window may wait; None if the setting for it is invalid.
        lag: How many symbols are behind, for a table with symbols.
    """

    target: str
    dag: str
    state: State
    newest: datetime | None
    waiting_since: datetime | None
    max_age_seconds: int | None
    lag: Lag | None

    @classmethod
    def of(cls, found: Freshness) -> TargetFreshness:
        """Convert the result of a check."""
        return cls(
            target=found.target.table,
            dag=found.target.dag_id,
            state=found.state,
            newest=found.newest,
            waiting_since=found.waiting_since,
            max_age_seconds=max_age_seconds(found.target),
            lag=found.lag,
        )


def max_age_seconds(target: Target) -> int | None:
    """How long a window of a table may wait; None if the setting for it is invalid."""
    try:
        return target.max_age // timedelta(seconds=1)
    except PermanentError:
        return None


class DataFreshness(Camel):
    """How fresh all tables are.

    Attributes:
        status: ``stale`` if a table is stale or could not be checked, else ``fresh``.
        timestamp: When the tables were checked.
        targets: Every table; stale and unknown tables come first.
    """

    status: State
    timestamp: datetime
    targets: list[TargetFreshness]


router = APIRouter()


@router.head("/", include_in_schema=False)
@router.get("/", responses={503: {"model": DataFreshness, "description": "A table is stale or could not be checked."}})
async def read_freshness(response: Response) -> DataFreshness:
    """Check all tables. Returns 200 if all are fresh, and 503 if a table is stale or could not be checked."""
    now = datetime.now(UTC)
    results = sorted(await check_all(freshness.TIME_LIMIT), key=lambda result: result.state not in _BAD)
    stale = any(result.state in _BAD for result in results)
    if stale:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return DataFreshness(
        status=State.STALE if stale else State.FRESH,
        timestamp=now,
        targets=[TargetFreshness.of(result) for result in results],
    )
