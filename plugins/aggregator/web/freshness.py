"""``GET /api/freshness``: whether every product's data is fresh, for an external monitor (spec: alerts and health).

The endpoint queries the products' databases. It works without the scheduler.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from http import HTTPStatus

from fastapi import APIRouter, Response

from aggregator.alerts import freshness
from aggregator.alerts.freshness import Freshness, State
from aggregator.core.errors import PermanentError
from aggregator.core.http import Camel, Threads

_BAD = {State.STALE, State.UNKNOWN}

_RESPONSE_TIMEOUT = 20.0
"""Seconds until the response is 503, because other requests have all threads."""

_THREADS = Threads("freshness", 2)


class TargetLag(Camel):
    """How many symbols of a table are behind.

    Attributes:
        behind: Number of symbols that have waited for longer than ``maxAgeSeconds``.
        symbols: Number of symbols that count.
        worst: Names of the symbols that have waited longest.
    """

    behind: int
    symbols: int
    worst: list[str]


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
    lag: TargetLag | None

    @classmethod
    def of(cls, found: Freshness) -> TargetFreshness:
        """Convert the result of a check.

        Args:
            found: The result.
        """
        try:
            max_age_seconds = found.target.max_age // timedelta(seconds=1)
        except PermanentError:
            max_age_seconds = None
        lag = found.lag
        return cls(
            target=found.target.table,
            dag=found.target.dag_id,
            state=found.state,
            newest=found.newest,
            waiting_since=found.waiting_since,
            max_age_seconds=max_age_seconds,
            lag=TargetLag(behind=lag.behind, symbols=lag.symbols, worst=list(lag.worst)) if lag else None,
        )


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
    results = await _THREADS.run(freshness.check, now, timeout=_RESPONSE_TIMEOUT)
    results.sort(key=lambda result: result.state not in _BAD)
    stale = any(result.state in _BAD for result in results)
    if stale:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return DataFreshness(
        status=State.STALE if stale else State.FRESH,
        timestamp=now,
        targets=[TargetFreshness.of(result) for result in results],
    )
