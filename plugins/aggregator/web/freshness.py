"""``GET /api/freshness``: whether every product's data is fresh, for a monitor outside (spec: alerts and health).

It asks the products' databases, and nothing of Airflow's but for their connections, so it answers when the scheduler is
dead.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from http import HTTPStatus

from fastapi import Depends, FastAPI, Response

from aggregator.alerts import freshness
from aggregator.alerts.freshness import Freshness, State
from aggregator.core.errors import PermanentError
from aggregator.core.http import Camel
from aggregator.web.security import require_cron_secret

PREFIX = "/api/freshness"
"""Where the app is mounted, and its only path."""

_BAD = {State.STALE, State.UNKNOWN}


class LagAnswer(Camel):
    """How many symbols of one table are behind.

    Attributes:
        behind: Symbols that have waited for longer than ``maxAgeSeconds``.
        symbols: All that count.
        worst: Those that wait longest.
    """

    behind: int
    symbols: int
    worst: list[str]


class TargetAnswer(Camel):
    """How fresh one table is.

    Attributes:
        target: The table.
        dag: Who writes or reads it.
        state: As :class:`aggregator.alerts.freshness.State`.
        newest: Up to when it has data.
        waiting_since: Start of the first window that it should have and has not.
        max_age_seconds: How long a window may wait; None if the setting that says so is invalid.
        lag: How many symbols are behind, for a table that has symbols.
    """

    target: str
    dag: str
    state: State
    newest: datetime | None
    waiting_since: datetime | None
    max_age_seconds: int | None
    lag: LagAnswer | None

    @classmethod
    def of(cls, found: Freshness) -> TargetAnswer:
        """The answer about a target that was looked at."""
        try:
            max_age_seconds = found.target.max_age // timedelta(seconds=1)
        except PermanentError:
            max_age_seconds = None
        return cls(
            target=found.target.table,
            dag=found.target.dag_id,
            state=found.state,
            newest=found.newest,
            waiting_since=found.waiting_since,
            max_age_seconds=max_age_seconds,
            lag=None
            if found.lag is None
            else LagAnswer(behind=found.lag.behind, symbols=found.lag.symbols, worst=list(found.lag.worst)),
        )


class Answer(Camel):
    """How fresh everything is.

    Attributes:
        status: ``fresh``, or ``stale`` if a table is stale or cannot be looked at.
        timestamp: The moment of the answer.
        targets: Every table, those that are not fresh first.
    """

    status: State
    timestamp: datetime
    targets: list[TargetAnswer]


app = FastAPI(title="Freshness", summary="Whether the data is fresh.", dependencies=[Depends(require_cron_secret)])


@app.head("/", include_in_schema=False)
@app.get("/", responses={503: {"model": Answer, "description": "Something is stale."}})
def read_freshness(response: Response) -> Answer:
    """How fresh the data is: 200 if all of it is, 503 if something is stale or cannot be looked at."""
    now = datetime.now(UTC)
    found = sorted(freshness.check(now), key=lambda one: one.state not in _BAD)
    bad = any(one.state in _BAD for one in found)
    if bad:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    status = State.STALE if bad else State.FRESH
    return Answer(status=status, timestamp=now, targets=[TargetAnswer.of(one) for one in found])
