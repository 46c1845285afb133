"""The tabs on Airflow's pages of our DAGs and their runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from aggregator.core.catalog import CATALOG, Tag
from aggregator.core.http import Camel
from aggregator.web.operations import access, kpi, overview
from aggregator.web.operations.database import Reader, ReadError, database
from aggregator.web.operations.overview import Alert, Dag
from aggregator.web.operations.params import Days, Number, Page, RunId, Time, invalid

DAYS = 7
"""Days of the figures of a DAG, including today."""


@dataclass(frozen=True)
class _Source:
    """Where the figures of a DAG are: a connection, and a query below ``include/sql``."""

    conn_id: str
    sql: str


_SOURCES = {
    "ohlcv_aggregation": _Source("market_db", "ohlcv/queries/operations_figures.sql"),
    "click_rollups": _Source("clicks_db", "clicks/queries/operations_figures.sql"),
    "telemetry_daily": _Source("telemetry_db", "telemetry/queries/operations_figures.sql"),
    "kpi_dispatch": _Source("kpi_db", "kpi/queries/operations_figures.sql"),
    **{
        dag_id: _Source("analytics_db", "analytics/queries/operations_figures.sql")
        for dag_id, facts in CATALOG.items()
        if Tag.ANALYTICS in facts.tags
    },
    "analytics_warmup_reset": _Source("analytics_db", "warmup/queries/operations_figures.sql"),
}

_OF_RUN = {"ohlcv_aggregation", "kpi_dispatch"}
"""DAGs whose tables name the run. The rows of the others belong to its data interval."""


class Figure(Camel):
    """A number with its name."""

    label: str
    value: Number
    unit: str | None


class Window(Camel):
    """A range of time; the end is exclusive."""

    start: datetime
    end: datetime


class DagTab(Camel):
    """A DAG, and what it stored in the last 7 days.

    Attributes:
        problems: What could not be read, and invalid settings.
    """

    dag: Dag
    window: Window
    figures: list[Figure]
    problems: list[str]


class Written(Camel):
    """What is stored in the tables of a DAG for a run."""

    table: str
    figures: list[Figure]


class RunTab(Camel):
    """A run, and what is stored for it.

    Attributes:
        window: Its data interval; None if it has none.
        wrote: What is stored for this interval or this run, whichever run stored it last.
        alerts: Alerts about the run.
        trace_id: ID of the KPI job.
        error: Error in the run log of OHLCV.
        problems: What could not be read.
    """

    run_id: str
    window: Window | None
    wrote: list[Written]
    alerts: list[Alert]
    trace_id: str | None
    error: str | None
    problems: list[str]


# Airflow queries its database for the DAG, and fails for a text that is no DAG ID.
router = APIRouter(prefix="/dags", tags=["tabs"], dependencies=[Depends(access.known_dag), access.DAG_OF_PATH])
KnownDag = Annotated[str, Depends(access.known_dag)]


@router.get("/{dag_id}")
async def read_dag(dag_id: KnownDag) -> DagTab:
    """Read the facts, freshness and alerts of a DAG, and what it stored in the last 7 days."""
    today = datetime.now(UTC).date()
    days = Days(today - timedelta(days=DAYS - 1), today + timedelta(days=1))
    (dag,), _, problems = await overview.describe([dag_id])
    figures: list[Figure] = []
    try:
        figures = await _figures(dag_id, days)
    except ReadError as error:
        problems.append(error.detail)
    start, end = (datetime(each.year, each.month, each.day, tzinfo=UTC) for each in (days.first, days.until))
    return DagTab(dag=dag, window=Window(start=start, end=end), figures=figures, problems=problems)


@router.get("/{dag_id}/run")
async def read_run(
    dag_id: KnownDag,
    run_id: RunId,
    start: Annotated[Time, Query(description="Start of the run's data interval.")] = None,
    end: Annotated[Time, Query(description="End of the run's data interval.")] = None,
) -> RunTab:
    """Read what is stored for a run, and the alerts about it."""
    window = Window(start=start, end=end) if start and end else None
    days = _days_of(window)
    wrote: list[Written] = []
    details: dict[str, Any] = {}
    alerts: list[Alert] = []
    problems: list[str] = []
    if dag_id in _OF_RUN or days:
        try:
            figures = await _figures(dag_id, days, run_id)
            details = await _details(dag_id, run_id)
            wrote = [Written(table=", ".join(CATALOG[dag_id].writes), figures=figures)]
        except ReadError as error:
            problems.append(error.detail)
    try:
        alerts = (await overview.find_alerts([dag_id], Page(), is_open=False, run_id=run_id)).items
    except ReadError as error:
        problems.append(error.detail)
    return RunTab(
        run_id=run_id,
        window=window,
        wrote=wrote,
        alerts=alerts,
        trace_id=details.get("trace_id"),
        error=details.get("error"),
        problems=problems,
    )


def _days_of(window: Window | None) -> Days | None:
    """The UTC days that a data interval touches; None if it is empty."""
    if window is None or window.start >= window.end:
        return None
    try:
        last = window.end.astimezone(UTC) - timedelta(microseconds=1)
        return Days(window.start.astimezone(UTC).date(), last.date() + timedelta(days=1))
    except OverflowError:
        raise invalid("end", "is outside the calendar") from None


async def _figures(dag_id: str, days: Days | None, run_id: str | None = None) -> list[Figure]:
    source = _SOURCES[dag_id]
    parameters = {"dag_id": dag_id, "run_id": run_id, **(days.parameters if days else _NO_DAYS)}
    rows = await database(source.conn_id).read(lambda reader: reader.rows(source.sql, **parameters))
    return [Figure(**row) for row in rows]


_NO_DAYS = {"first_day": None, "until_day": None}


async def _details(dag_id: str, run_id: str) -> dict[str, Any]:
    def read(reader: Reader) -> dict[str, Any]:
        if dag_id == "kpi_dispatch":
            return kpi.find_job(reader, run_id=run_id)
        return reader.row("ohlcv/queries/operations_runs.sql", run_id=run_id, limit=1, offset=0)

    return await database(_SOURCES[dag_id].conn_id).read(read) if dag_id in _OF_RUN else {}
