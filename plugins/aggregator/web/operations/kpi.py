"""KPIs: the jobs of ``kpi_dispatch``, and the registry."""

from __future__ import annotations

from datetime import date, datetime
from functools import lru_cache
from http import HTTPStatus
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, Path

from aggregator.core.http import Camel, Threads
from aggregator.kpi import registry
from aggregator.kpi.jobs import CONNECTION
from aggregator.web.operations import access
from aggregator.web.operations.database import REQUEST_TIMEOUT, Reader, ReadError, database
from aggregator.web.operations.params import CellRange, DayRange, Items, PageOf, Search


class Cell(Camel):
    """The result of a KPI in a job."""

    status: str
    error: str | None
    retry_count: int


class KpiRow(Camel):
    """A KPI, and its result on each day; None on a day without a job that has it."""

    kpi_id: str
    name: str
    type: str
    report_back: bool
    cells: list[Cell | None]


class Grid(Items[KpiRow]):
    """The results of KPIs by UTC day, in the newest job of each day.

    Attributes:
        days: The days.
        jobs: ID of the day's job; None on a day without a job.
    """

    days: list[date]
    jobs: list[str | None]


class Job(Camel):
    """A job, with the numbers of its KPIs."""

    trace_id: str
    run_id: str
    environment: str
    status: str
    created_at: datetime
    updated_at: datetime
    kpis: int
    completed: int
    failed: int


class JobKpi(Camel):
    """The result of a KPI in a job.

    Attributes:
        requests: Requests since the last deliberate repetition.
        retry_count: Those after the first one.
        send_number: 1, and 1 more for each deliberate repetition.
        reported: Whether n8n reported the end of the workflow.
    """

    kpi_id: str
    name: str
    type: str
    status: str
    error: str | None
    report_back: bool
    requests: int
    retry_count: int
    send_number: int
    sent_at: datetime | None
    completed_at: datetime | None
    updated_at: datetime
    reported: bool


class JobDetail(Job, Items[JobKpi]):
    """A job and its KPIs."""


class RegistryEntry(Camel):
    """An active entry of the registry. The path of its webhook may be its only secret, so only the host is shown."""

    id: str
    name: str | None = None
    type: str | None = None
    host: str | None = None
    report_back: bool | None = None
    state: Literal["sent", "dropped"]
    reason: str | None = None


class RegistryPage(Items[RegistryEntry]):
    """The active entries of the registry.

    Attributes:
        sent: Number of entries that are sent.
        dropped: Number of invalid entries, which are not sent.
        problem: Why the whole registry cannot be used.
    """

    sent: int
    dropped: int
    problem: str | None


router = APIRouter(prefix="/kpi", tags=["KPIs"], dependencies=[access.dag("kpi_dispatch")])
_database = database(CONNECTION)
_threads = Threads("operations-registry", 2)


@router.get("/grid")
async def read_grid(days: CellRange, page: PageOf, search: Search = "") -> Grid:
    """Read the result of each KPI on each day."""

    def read(reader: Reader) -> Grid:
        jobs = reader.rows("kpi/queries/operations_days.sql", **days.parameters)
        trace_ids = days.column(jobs, "trace_id")
        parameters = {"trace_ids": trace_ids, "search": search}
        found = page.items(reader, KpiRow, "kpi/queries/operations_grid.sql", **parameters)
        return Grid(days=days.all, jobs=trace_ids, total=found.total, items=found.items)

    return await _database.read(read)


@router.get("/jobs")
async def read_jobs(days: DayRange, page: PageOf) -> Items[Job]:
    """List jobs, the newest first."""
    parameters = {**days.parameters, "trace_id": None, "run_id": None}
    return await _database.read(lambda reader: page.items(reader, Job, "kpi/queries/operations_jobs.sql", **parameters))


@router.get("/jobs/{traceId}")
async def read_job(
    trace_id: Annotated[str, Path(alias="traceId", pattern="^trace_[0-9]{8}_[0-9]{6}_[a-z0-9]{8}$")],
    page: PageOf,
    search: Search = "",
) -> JobDetail:
    """Read a job and its KPIs, those with problems first."""

    def read(reader: Reader) -> JobDetail:
        job = find_job(reader, trace_id=trace_id)
        if not job:
            detail = f"There is no job {trace_id} in kpi.jobs. KPI_JOBS_KEEP_DAYS limits how long jobs are kept."
            raise ReadError(HTTPStatus.NOT_FOUND, "not_found", detail)
        parameters = {"trace_id": trace_id, "search": search}
        found = page.items(reader, JobKpi, "kpi/queries/operations_job_kpis.sql", **parameters)
        return JobDetail(**{**job, "total": found.total, "items": found.items})

    return await _database.read(read)


def find_job(reader: Reader, *, trace_id: str | None = None, run_id: str | None = None) -> dict[str, Any]:
    """Find a job by its ID, or by the run that created it.

    Args:
        reader: Reader of the database of ``kpi_db``.
        trace_id: ID of the job.
        run_id: Run of ``kpi_dispatch``.

    Returns:
        Its row by column name; empty if there is none.
    """
    return reader.row(
        "kpi/queries/operations_jobs.sql",
        trace_id=trace_id,
        run_id=run_id,
        first_day=None,
        until_day=None,
        limit=1,
        offset=0,
    )


@router.get("/registry")
async def read_registry(
    page: PageOf, search: Search = "", state: Literal["sent", "dropped"] | None = None
) -> RegistryPage:
    """List the active entries of the registry, invalid ones first, each with the reason."""
    try:
        text = await _threads.run(registry.load, timeout=REQUEST_TIMEOUT)
    except Exception as error:
        # The text of a foreign error may contain a password.
        detail = (
            f"The Airflow Variable {registry.VARIABLE} cannot be read ({type(error).__name__}). Reload the page later."
        )
        raise ReadError(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", detail) from error
    try:
        entries = _entries(text)
    except registry.RegistryError as error:
        return RegistryPage(total=0, items=[], sent=0, dropped=0, problem=str(error))
    wanted = search.lower()
    matching = [
        entry
        for entry in entries
        if wanted in f"{entry.id} {entry.name or ''}".lower() and state in {None, entry.state}
    ]
    dropped = sum(entry.state == "dropped" for entry in entries)
    return RegistryPage(
        total=len(matching),
        items=matching[page.offset : page.offset + page.limit],
        sent=len(entries) - dropped,
        dropped=dropped,
        problem=None,
    )


@lru_cache(maxsize=1)
def _entries(text: str | None) -> list[RegistryEntry]:
    parsed = registry.parse(text)
    return [
        *(RegistryEntry(id=name, state="dropped", reason=reason) for name, reason in parsed.dropped),
        *(
            RegistryEntry(
                id=kpi.id,
                name=kpi.name,
                type=kpi.type,
                host=urlsplit(kpi.webhook_url).netloc,
                report_back=kpi.report_back,
                state="sent",
            )
            for kpi in parsed.kpis
        ),
    ]
