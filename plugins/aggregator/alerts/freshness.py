"""How old the newest data of every product may be: the only place (spec: alerts and health).

No run has to exist: it is the tables that are looked at, so a scheduler that is down shows, too.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from aggregator.alerts.store import hook
from aggregator.core.catalog import CATALOG, deadline_of
from aggregator.core.errors import AggregatorError, UnknownConnectionError
from aggregator.core.paths import SQL
from aggregator.core.settings import AnalyticsSettings, OhlcvSettings

log = logging.getLogger(__name__)

QUERY_TIMEOUT = timedelta(seconds=5)
"""The longest that a statement may take; a database that takes longer cannot be judged."""

MAX_NAMES = 3
"""Symbols that are behind and are named, those that wait longest first."""

_ANALYTICS = "analytics_db"
_MARKET = "market_db"


@dataclass(frozen=True)
class Target:
    """A table whose data has to be fresh: written by a DAG, or by a feed that a DAG reads.

    Attributes:
        table: As ``schema.table``.
        dag_id: Who writes or reads it.
        conn_id: Connection of its database.
        sql: File of the query that says up to when it has data, and since when its source has had some that it has not.
        due: Time from the start of a window to the moment at which the window's run is due, at most; None for a feed.
        source: What its rows are made of.
    """

    table: str
    dag_id: str
    conn_id: str
    sql: str
    due: timedelta | None
    source: str

    @property
    def max_age(self) -> timedelta:
        """How long data may wait: until the deadline of the run that has to take it; of a feed, as the setting says."""
        if self.due is None:
            return timedelta(hours=OhlcvSettings.load().candle_max_age_hours)
        return self.due + deadline_of(self.dag_id)


TARGETS = tuple(
    Target(
        rule.table,
        dag_id,
        rule.conn_id,
        rule.sql,
        None if rule.is_feed else (rule.window or facts.schedule.every) + (facts.schedule.offset or timedelta()),
        rule.source,
    )
    for dag_id, facts in CATALOG.items()
    for rule in facts.freshness
)
"""Every table whose freshness the catalog says how to check."""


class State(StrEnum):
    """What is known of a target."""

    FRESH = "fresh"
    STALE = "stale"
    EMPTY = "empty"
    PAUSED = "paused"
    UNUSED = "unused"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Lag:
    """How many symbols of a target are behind.

    Attributes:
        behind: Symbols that have waited for longer than the target's limit.
        symbols: All that count.
        worst: Names of those that wait longest, `MAX_NAMES` at most.
    """

    behind: int
    symbols: int
    worst: tuple[str, ...]

    def __str__(self) -> str:
        """One sentence for a person."""
        if not self.behind:
            return f"None of {self.symbols:,} symbols is behind."
        more = f" and {self.behind - len(self.worst):,} more" if self.behind > len(self.worst) else ""
        return f"{self.behind:,} of {self.symbols:,} symbols are behind: {', '.join(self.worst)}{more}."


@dataclass(frozen=True)
class Freshness:
    """How fresh a target is.

    Attributes:
        target: Which.
        state: Whether that is good: ``empty`` has no data yet, ``paused`` is not to have any now, ``unused`` has no
            connection, and of ``unknown`` its database, or what Airflow keeps connections in, does not answer.
        newest: Up to when it has data.
        waiting_since: Start of the first window that it should have and has not; None if there is none. Of a target
            with symbols: since when more of them than `OHLCV_MAX_BEHIND_PERCENT` wait; None if no more do.
        lag: How many symbols are behind; None for a target without symbols.
    """

    target: Target
    state: State
    newest: datetime | None = None
    waiting_since: datetime | None = None
    lag: Lag | None = None


def check(now: datetime | None = None) -> list[Freshness]:
    """Look at every target, all at once.

    Args:
        now: The moment to judge by; None for the present one.
    """
    moment = now or datetime.now(UTC)
    with ThreadPoolExecutor(len(TARGETS), thread_name_prefix="freshness") as threads:
        return list(threads.map(lambda target: _check(target, moment), TARGETS))


def _check(target: Target, now: datetime) -> Freshness:
    try:
        if target.conn_id == _ANALYTICS and not AnalyticsSettings.load().enable_analytics_cron:
            return Freshness(target, State.PAUSED)
        max_age = target.max_age
        newest, waiting_since, lag = _query(target, now, max_age)
    except UnknownConnectionError:
        return Freshness(target, State.UNUSED)
    except AggregatorError as error:
        log.warning("It is not known how fresh %s is: %s", target.table, error)
        return Freshness(target, State.UNKNOWN)
    if newest is None:
        return Freshness(target, State.EMPTY)
    late = waiting_since is not None and now - waiting_since > max_age
    return Freshness(target, State.STALE if late else State.FRESH, newest, waiting_since, lag)


def _query(target: Target, now: datetime, max_age: timedelta) -> tuple[datetime | None, datetime | None, Lag | None]:
    query = (SQL / target.sql).read_text()
    parameters: dict[str, Any] = {"now": now}
    if target.conn_id == _MARKET:
        settings = OhlcvSettings.load()
        parameters |= {
            "late_before": now - max_age,
            "env_name": settings.env_name,
            "max_behind_percent": settings.ohlcv_max_behind_percent,
            "max_names": MAX_NAMES,
        }
    with hook(target.conn_id).transaction(
        timeout=QUERY_TIMEOUT, application_name="aggregator/freshness", read_only=True
    ) as cursor:
        table = target.table.split()[0]
        if cursor.execute("select to_regclass(%s)", [table]).fetchone() == (None,):
            return None, None, None
        newest, waiting_since, *lag = cursor.execute(query, parameters).fetchone() or (None, None)
    if not lag:
        return newest, waiting_since, None
    behind, symbols, worst = lag
    return newest, waiting_since, Lag(behind, symbols, tuple(worst))
