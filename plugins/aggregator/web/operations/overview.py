"""The overview: schedule, freshness, objective and open alerts of every DAG, and all alerts."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from aggregator.alerts.freshness import TARGETS, Freshness, Lag, State
from aggregator.alerts.store import CONNECTION
from aggregator.core.catalog import CATALOG, DagFacts, Owner, deadline_of, deadline_settings
from aggregator.core.errors import PermanentError
from aggregator.core.http import Camel
from aggregator.core.settings import ObjectiveSettings
from aggregator.web.freshness import check_all, max_age_seconds
from aggregator.web.operations import access  # noqa: TC001 - FastAPI evaluates the annotations
from aggregator.web.operations.assets import VERSION
from aggregator.web.operations.database import ReadError, database
from aggregator.web.operations.params import DayRange, Days, Items, Number, Page, PageOf, Text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

OBJECTIVE = 99.0
"""Share of scheduled runs that have to end before their deadline, in percent."""

PRODUCTS = {
    Owner.MARKET_DATA: "ohlcv",
    Owner.CLICKS: "clicks",
    Owner.TELEMETRY: "telemetry",
    Owner.ANALYTICS: "analytics",
    Owner.KPI: "kpi",
}
"""Team → product, as the paths of this API name it."""

FRESHNESS_TIMEOUT = timedelta(seconds=3)
"""Time limit of the checks of all tables. A table whose check takes longer is unknown."""

ALL_DAYS = Days(date.min, date.max)

_SUITE = frozenset(dag_id for dag_id, facts in CATALOG.items() if facts.message)

_SUBJECTS: dict[str, set[str]] = defaultdict(set)
for _dag_id in CATALOG:
    _SUBJECTS[_dag_id].add(_dag_id)
for _target in TARGETS:
    _SUBJECTS[_target.table].add(_target.dag_id)
_SUBJECTS["ohlcv.tasks"] = {"ohlcv_aggregation"}
_SUBJECTS["ops.dead_letters"] = set(_SUITE)


class Alert(Camel):
    """An alert.

    Attributes:
        dag_ids: The DAGs that it is about, of those that the user may read.
        members: Affected runs or tasks, at most 20.
        members_total: Number of all affected runs or tasks.
        since: When the problem started.
        age_seconds: Time from then until now, or until the alert was resolved.
    """

    id: int
    kind: str
    subject: str
    dag_ids: list[str] = Field(default_factory=list)
    members: list[str]
    members_total: int
    since: datetime
    raised_at: datetime
    resolved_at: datetime | None
    age_seconds: Number
    text: str


class TableFreshness(Camel):
    """How fresh a table is.

    Attributes:
        state: See :class:`aggregator.alerts.freshness.State`.
        newest: End of the data.
        waiting_since: Start of the first window whose data is missing.
        max_age_seconds: How long a window may wait; None if the setting for it is invalid.
        is_feed: Whether an external system writes the table.
    """

    table: str
    source: str
    is_feed: bool
    state: State
    newest: datetime | None
    waiting_since: datetime | None
    max_age_seconds: int | None
    lag: Lag | None

    @classmethod
    def of(cls, found: Freshness) -> TableFreshness:
        """Convert the result of a check."""
        return cls(
            table=found.target.table,
            source=found.target.rule.source,
            is_feed=found.target.rule.is_feed,
            state=found.state,
            newest=found.newest,
            waiting_since=found.waiting_since,
            max_age_seconds=max_age_seconds(found.target),
            lag=found.lag,
        )


class Dag(Camel):
    """A DAG.

    Attributes:
        product: The product, as the paths of this API name it.
        offset_seconds: Time from the end of a data interval to its run; None for a DAG without data intervals.
        deadline_seconds: Longest time from when a scheduled run is due to its end.
        objective_percent: Share of scheduled runs that have to end before their deadline.
        impact: Consequence of missing data.
        catches_up: Whether the next scheduled run does the work of a failed run.
    """

    dag_id: str
    description: str
    owner: str
    product: str
    cron: str
    every_seconds: int
    offset_seconds: int | None
    deadline_seconds: int
    objective_percent: float
    writes: list[str]
    impact: str
    catches_up: bool
    freshness: list[TableFreshness]
    open_alerts: list[Alert]


class Overview(Camel):
    """All DAGs that the user may read.

    Attributes:
        timestamp: When the data was read.
        page_version: Version of the page's files. If it changes, reload the page.
        dags: In the order of the catalog.
        other_alerts: Open alerts about several DAGs.
        problems: What could not be read, and invalid settings. The rest is valid.
    """

    timestamp: datetime
    page_version: str
    dags: list[Dag]
    other_alerts: list[Alert]
    problems: list[str]


router = APIRouter(tags=["overview"])
_database = database(CONNECTION)


@router.get("/overview")
async def read_overview(readable: access.ReadableDags) -> Overview:
    """Read schedule, freshness, objective and open alerts of each DAG."""
    dags, other_alerts, problems = await describe(readable)
    now = datetime.now(UTC)
    return Overview(timestamp=now, page_version=VERSION, dags=dags, other_alerts=other_alerts, problems=problems)


@router.get("/alerts")
async def read_alerts(
    readable: access.ReadableDags,
    days: DayRange,
    page: PageOf,
    state: Annotated[
        Literal["open", "all"], Query(description="Open alerts of any age, or those raised in a range of days.")
    ] = "open",
    dag_id: Annotated[Text | None, Query(description="Only alerts about this DAG.")] = None,
) -> Items[Alert]:
    """List alerts, the newest first."""
    wanted = readable if dag_id is None else readable & {dag_id}
    return await find_alerts(wanted, page, is_open=state == "open", days=days)


async def describe(dag_ids: Collection[str]) -> tuple[list[Dag], list[Alert], list[str]]:
    """Describe DAGs. A database that fails leaves the rest as it is.

    Args:
        dag_ids: The DAGs.

    Returns:
        The DAGs in the order of the catalog, open alerts about several DAGs, and problems.
    """
    checks, (alerts, problems) = await asyncio.gather(check_all(FRESHNESS_TIMEOUT), _open_alerts(dag_ids))
    objectives, wrong_objectives = _objectives()
    _, wrong_deadlines = deadline_settings()
    of_one = [alert for alert in alerts if alert.kind != "dead_letters"]
    dags = [
        _dag(dag_id, facts, objectives.get(dag_id, OBJECTIVE), checks, of_one)
        for dag_id, facts in CATALOG.items()
        if dag_id in dag_ids
    ]
    others = [alert for alert in alerts if alert.kind == "dead_letters"]
    return dags, others, [problem for problem in (problems, wrong_objectives, wrong_deadlines) if problem]


async def find_alerts(
    dag_ids: Collection[str],
    page: Page,
    *,
    is_open: bool,
    days: Days = ALL_DAYS,
    run_id: str | None = None,
) -> Items[Alert]:
    """Find alerts about some DAGs.

    Args:
        dag_ids: The DAGs.
        page: The requested part.
        is_open: Whether to find the alerts that are not resolved.
        days: UTC days on which the others were raised.
        run_id: Only alerts about this run.

    Raises:
        ReadError: The alerts cannot be read.
    """
    subjects = {subject: sorted(about & {*dag_ids}) for subject, about in _SUBJECTS.items()}
    parameters: dict[str, Any] = {
        "subjects": [subject for subject, about in subjects.items() if about],
        "is_open": is_open,
        "run_id": run_id,
        **days.parameters,
    }
    found = await _database.read(
        lambda reader: page.items(reader, Alert, "alerts/queries/operations_alerts.sql", **parameters)
    )
    for alert in found.items:
        alert.dag_ids = subjects[alert.subject]
    return found


async def _open_alerts(dag_ids: Collection[str]) -> tuple[list[Alert], str | None]:
    try:
        found = await find_alerts(dag_ids, Page(limit=200), is_open=True)
    except ReadError as error:
        return [], f"The alerts cannot be read. {error.detail}"
    return found.items, None


def _objectives() -> tuple[dict[str, float], str | None]:
    try:
        objectives = ObjectiveSettings.load().aggregator_objectives
    except PermanentError as error:
        return {}, f"{error} The default objective applies."
    if unknown := objectives.keys() - CATALOG.keys():
        names = ", ".join(sorted(unknown))
        return objectives, f"Invalid settings: AGGREGATOR_OBJECTIVES: there is no DAG {names}. Correct its name."
    return objectives, None


def _dag(dag_id: str, facts: DagFacts, objective: float, checks: Iterable[Freshness], alerts: Iterable[Alert]) -> Dag:
    schedule = facts.schedule
    return Dag(
        dag_id=dag_id,
        description=facts.description,
        owner=facts.owner,
        product=PRODUCTS[facts.owner],
        cron=schedule.cron,
        every_seconds=_seconds(schedule.every),
        offset_seconds=None if schedule.offset is None else _seconds(schedule.offset),
        deadline_seconds=_seconds(deadline_of(dag_id)),
        objective_percent=objective,
        writes=list(facts.writes),
        impact=facts.impact,
        catches_up=facts.catches_up,
        freshness=[TableFreshness.of(found) for found in checks if found.target.dag_id == dag_id],
        open_alerts=[alert for alert in alerts if dag_id in alert.dag_ids],
    )


def _seconds(duration: timedelta) -> int:
    return duration // timedelta(seconds=1)
