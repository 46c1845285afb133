"""Checks how old the newest data of every product is.

The checks query the tables, not Airflow's runs. So they also find missing data while the scheduler is down.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from aggregator.alerts.store import hook
from aggregator.core.catalog import CATALOG, FreshnessRule, deadline_of, schedule_of
from aggregator.core.errors import AggregatorError, UnknownConnectionError
from aggregator.core.paths import SQL
from aggregator.core.settings import AnalyticsSettings, OhlcvSettings
from aggregator.core.text import listed

log = logging.getLogger(__name__)

QUERY_TIMEOUT = timedelta(seconds=5)
"""Timeout of a query. The state of a table whose query takes longer is unknown."""

TIME_LIMIT = timedelta(seconds=15)
"""Time limit of a check of all tables. A table without a result by then is unknown: its server may drop packets."""

MAX_NAMES = 3
"""Symbols that are named of those that are behind."""


@dataclass(frozen=True)
class Target:
    """A table whose freshness is checked.

    Attributes:
        dag_id: The DAG that writes the table, or that reads it if a feed writes it.
        rule: The rule in the catalog.
    """

    dag_id: str
    rule: FreshnessRule

    @property
    def table(self) -> str:
        """``schema.table``; a note in brackets may follow."""
        return self.rule.table

    @property
    def due(self) -> timedelta | None:
        """Longest time from the start of a window to the time its run is due; None for a feed."""
        schedule = schedule_of(self.dag_id)
        return None if self.rule.is_feed else (self.rule.window or schedule.every) + (schedule.offset or timedelta())

    @property
    def max_age(self) -> timedelta:
        """How old the start of the first missing window may be; for a feed, ``CANDLE_MAX_AGE_HOURS``."""
        if self.due is None:
            return timedelta(hours=OhlcvSettings.load().candle_max_age_hours)
        return self.due + deadline_of(self.dag_id)


TARGETS = tuple(Target(dag_id, rule) for dag_id, facts in CATALOG.items() for rule in facts.freshness)
"""The tables of all freshness rules in the catalog."""


class State(StrEnum):
    """State of a table.

    ``empty`` has no data yet. ``paused`` needs no new data, because its DAGs are paused. ``unused`` has no connection.
    For ``unknown``, the database or the secrets backend did not respond, or a setting is invalid.
    """

    FRESH = "fresh"
    STALE = "stale"
    EMPTY = "empty"
    PAUSED = "paused"
    UNUSED = "unused"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Lag:
    """How many symbols of a table are behind.

    Attributes:
        behind: Number of symbols whose data is older than the limit.
        symbols: Number of checked symbols.
        worst: Those with the oldest data, at most ``MAX_NAMES``.
    """

    behind: int
    symbols: int
    worst: tuple[str, ...]

    def __str__(self) -> str:
        """One sentence for an alert."""
        if not self.behind:
            return f"None of {self.symbols:,} symbols is behind."
        names = listed(self.worst, MAX_NAMES, of=self.behind)
        return f"{self.behind:,} of {self.symbols:,} symbols are behind: {names}."


@dataclass(frozen=True)
class Freshness:
    """Result of the check of a table.

    Attributes:
        target: The table.
        state: Its state.
        newest: End of its data.
        waiting_since: Start of the first missing window; None if none is missing. For a table with symbols, the time
            since when more than ``OHLCV_MAX_BEHIND_PERCENT`` of them are behind; None while fewer are.
        lag: How many symbols are behind; None for a table without symbols.
    """

    target: Target
    state: State
    newest: datetime | None = None
    waiting_since: datetime | None = None
    lag: Lag | None = None


def check(now: datetime | None = None) -> list[Freshness]:
    """Check all tables in parallel, within :data:`TIME_LIMIT`."""
    time = now or datetime.now(UTC)
    threads = ThreadPoolExecutor(len(TARGETS), thread_name_prefix="freshness")
    checks = {target: threads.submit(check_target, target, time) for target in TARGETS}
    done, missing = wait(checks.values(), TIME_LIMIT.total_seconds())
    threads.shutdown(wait=False)
    if missing:
        names = listed((target.table for target, check in checks.items() if check in missing), len(TARGETS))
        log.warning("Freshness checks did not finish. tables=%r seconds=%d", names, TIME_LIMIT.total_seconds())
    return [check.result() if check in done else Freshness(target, State.UNKNOWN) for target, check in checks.items()]


def check_target(target: Target, now: datetime) -> Freshness:
    """Check one table, at a given time."""
    try:
        if target.rule.conn_id == "analytics_db" and not AnalyticsSettings.load().enable_analytics_cron:
            return Freshness(target, State.PAUSED)
        max_age = target.max_age
        newest, waiting_since, lag = _query(target, now, max_age)
    except UnknownConnectionError:
        return Freshness(target, State.UNUSED)
    except AggregatorError as error:
        log.warning("Freshness check failed. table=%s state=unknown: %s", target.table, error)
        return Freshness(target, State.UNKNOWN)
    if newest is None:
        return Freshness(target, State.EMPTY)
    late = waiting_since is not None and now - waiting_since > max_age
    return Freshness(target, State.STALE if late else State.FRESH, newest, waiting_since, lag)


def _query(target: Target, now: datetime, max_age: timedelta) -> tuple[datetime | None, datetime | None, Lag | None]:
    query = (SQL / target.rule.sql).read_text()
    parameters: dict[str, Any] = {"now": now}
    if target.rule.conn_id == "market_db":
        settings = OhlcvSettings.load()
        parameters |= {
            "late_before": now - max_age,
            "env_name": settings.env_name,
            "max_behind_percent": settings.ohlcv_max_behind_percent,
            "max_names": MAX_NAMES,
        }
    with hook(target.rule.conn_id).transaction(
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
