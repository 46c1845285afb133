"""``GET /api/health``: whether KPI dispatch works, without authentication (spec: KPI dispatch, health)."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypeVar

from fastapi import APIRouter, Response
from pydantic import Field, JsonValue

from aggregator import __version__
from aggregator.core.connections import check_backends
from aggregator.core.errors import AggregatorError
from aggregator.core.http import Camel, Threads
from aggregator.core.paths import SQL
from aggregator.kpi import WORKER, registry
from aggregator.kpi.jobs import CONNECTION
from aggregator.postgres.hook import PostgresTransactionHook

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

T = TypeVar("T")

QUERY_TIMEOUT = 2.0
"""Time limit of a query, in seconds; a store that takes longer counts as unreachable."""

_THREADS = Threads("health", 4)


class KvStores(Camel):
    """Whether the stores are reachable. In the original product they were KV namespaces.

    Attributes:
        jobs: The job records in PostgreSQL.
        config: The KPI registry in Airflow's Variables.
    """

    jobs: bool
    config: bool


class LastJob(Camel):
    """The newest job record, without its KPIs.

    Attributes:
        trace_id: ID of the job.
        status: Status of the whole job.
        created_at: When the job was created, in UTC.
        updated_at: When the job last changed, in UTC.
        metadata: Its environment, and the numbers of all, completed and failed KPIs.
    """

    trace_id: str
    status: str
    created_at: datetime
    updated_at: datetime
    metadata: dict[str, JsonValue]


class Health(Camel):
    """Health of KPI dispatch.

    Attributes:
        status: ``degraded`` if there is a warning.
        timestamp: When the health was checked, in UTC.
        worker: Name of the component.
        version: Version of the repository.
        kv_stores: Whether the stores are reachable.
        warnings: Problems that need attention.
        last_job: The newest job; absent before the first job.
        response_time: Duration of the check, in milliseconds.
    """

    status: Literal["healthy", "degraded"]
    timestamp: datetime
    worker: str = WORKER
    version: str = __version__
    kv_stores: KvStores
    warnings: list[str] | None = None
    last_job: LastJob | None = None
    response_time: int = Field(description="Milliseconds.")


router = APIRouter()


@router.head("/", include_in_schema=False)
@router.get("/", response_model_exclude_none=True)
async def health(response: Response) -> Health:
    """Check the stores and return the newest job. The status is always 200; problems are in `warnings`."""
    started = time.perf_counter()
    response.headers["Cache-Control"] = "no-store"
    (jobs, last_job), (config, problem) = await asyncio.gather(_query(_last_job), _query(_registry_problem))
    warnings = [
        *(["The job records cannot be reached."] if not jobs else []),
        *(["The KPI registry cannot be reached."] if not config else []),
        *([problem] if problem else []),
    ]
    return Health(
        status="degraded" if warnings else "healthy",
        timestamp=datetime.now(UTC),
        kv_stores=KvStores(jobs=jobs, config=config),
        warnings=warnings or None,
        last_job=last_job,
        response_time=round((time.perf_counter() - started) * 1000),
    )


async def _query(store: Callable[[], T]) -> tuple[bool, T | None]:
    """Return whether a store responds in time, and its response."""
    try:
        return True, await _THREADS.run(store, timeout=QUERY_TIMEOUT)
    except Exception as error:  # noqa: BLE001 - the endpoint responds whatever fails in a store
        # The text of a foreign error may contain a password or a row.
        reason = error if isinstance(error, AggregatorError) else type(error).__name__
        log.warning("Health check %s failed: %s", store.__name__, reason)
        return False, None


def _last_job() -> LastJob | None:
    with PostgresTransactionHook(CONNECTION).transaction(
        timeout=timedelta(seconds=QUERY_TIMEOUT), application_name="aggregator/health", read_only=True
    ) as cursor:
        row = cursor.execute((SQL / "kpi/queries/last_job.sql").read_text()).fetchone()
    return LastJob.model_validate(dict(zip(LastJob.model_fields, row, strict=True))) if row else None


def _registry_problem() -> str | None:
    text = registry.load()
    if text is None:
        check_backends(lambda backend: backend.get_variable(key=registry.VARIABLE))
    return _problem_of(text)


# This endpoint is public and may be called at any rate, and the registry rarely changes.
@lru_cache(maxsize=1)
def _problem_of(text: str | None) -> str | None:
    try:
        dropped = len(registry.parse(text).dropped)
    except registry.RegistryError as error:
        return str(error)
    return f"{dropped} invalid entries of the KPI registry are not sent." if dropped else None
