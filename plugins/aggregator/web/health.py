"""``GET /api/health``: whether KPI dispatch can do its work, for anybody who asks (spec: KPI dispatch, health)."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypeVar

from fastapi import FastAPI, Response
from pydantic import Field, JsonValue

from aggregator import __version__
from aggregator.core.errors import AggregatorError
from aggregator.core.http import Camel
from aggregator.core.paths import SQL
from aggregator.core.secrets_backends import require_answers
from aggregator.kpi import WORKER, registry

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

T = TypeVar("T")

PREFIX = "/api/health"
"""Where the app is mounted, and its only path."""

ANSWER_WITHIN = 2.0
"""Seconds that a store has for its answer; one that takes longer counts as unreachable."""

# Threads of our own: stores that hang bind these, whoever asks how often, and leave Airflow's to Airflow.
_THREADS = ThreadPoolExecutor(4, thread_name_prefix="health")


class KvStores(Camel):
    """Whether the stores answer: what used to be KV namespaces.

    Attributes:
        jobs: The job records, in PostgreSQL.
        config: The KPI registry, in Airflow's variables.
    """

    jobs: bool
    config: bool


class LastJob(Camel):
    """The newest job record, without its KPIs.

    Attributes:
        trace_id: Its id.
        status: Of the whole job.
        created_at: When it was written, in UTC.
        updated_at: When something became of it last, in UTC.
        metadata: How many KPIs it has, has completed, and has failed; its environment.
    """

    trace_id: str
    status: str
    created_at: datetime
    updated_at: datetime
    metadata: dict[str, JsonValue]


class Health(Camel):
    """How KPI dispatch is.

    Attributes:
        status: Degraded if there is a warning.
        timestamp: When this was found out, in UTC.
        worker: Name of this part of the product.
        version: Of the repository.
        kv_stores: Whether the stores answer.
        warnings: What needs somebody's attention.
        last_job: The newest job; missing where there was none yet.
        response_time: Milliseconds it took to find this out.
    """

    status: Literal["healthy", "degraded"]
    timestamp: datetime
    worker: str = WORKER
    version: str = __version__
    kv_stores: KvStores
    warnings: list[str] | None = None
    last_job: LastJob | None = None
    response_time: int = Field(description="Milliseconds.")


app = FastAPI(title="Health", summary="Whether KPI dispatch can do its work.")


@app.head("/", include_in_schema=False)
@app.get("/", response_model_exclude_none=True)
async def health(response: Response) -> Health:
    """Whether the stores answer, and what came of the last job. 200 with warnings where something is wrong."""
    started = time.perf_counter()
    response.headers["Cache-Control"] = "no-store"
    (jobs, last_job), (config, doubt) = await asyncio.gather(_ask(_last_job), _ask(_doubt_about_registry))
    warnings = [
        *(["The job records cannot be reached."] if not jobs else []),
        *(["The KPI registry cannot be reached."] if not config else []),
        *([doubt] if doubt else []),
    ]
    return Health(
        status="degraded" if warnings else "healthy",
        timestamp=datetime.now(UTC),
        kv_stores=KvStores(jobs=jobs, config=config),
        warnings=warnings or None,
        last_job=last_job,
        response_time=round((time.perf_counter() - started) * 1000),
    )


async def _ask(question: Callable[[], T]) -> tuple[bool, T | None]:
    """Whether a store answers in time, and what."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            return True, await asyncio.get_running_loop().run_in_executor(_THREADS, question)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with a store, this answers
        # Not its text: that of a foreign error may hold anything.
        log.warning("%s: %s", question.__name__, error if isinstance(error, AggregatorError) else type(error).__name__)
        return False, None


def _last_job() -> LastJob | None:
    # Every process of Airflow loads this plugin; few are asked.
    from aggregator.kpi.jobs import CONNECTION
    from aggregator.postgres.hook import PostgresTransactionHook

    hook = PostgresTransactionHook(CONNECTION)
    with hook.transaction(
        timeout=timedelta(seconds=ANSWER_WITHIN), application_name="aggregator/health", read_only=True
    ) as cursor:
        row = cursor.execute((SQL / "kpi/queries/last_job.sql").read_text()).fetchone()
    return LastJob.model_validate(dict(zip(LastJob.model_fields, row, strict=True))) if row else None


def _doubt_about_registry() -> str | None:
    text = registry.load()
    if text is None:
        require_answers(lambda backend: backend.get_variable(key=registry.VARIABLE))
    return _doubt(text)


# Anybody may ask, at any rate, and the registry changes seldom.
@lru_cache(maxsize=1)
def _doubt(text: str | None) -> str | None:
    try:
        dropped = len(registry.parse(text).dropped)
    except registry.RegistryError as error:
        return str(error)
    return f"{dropped} invalid entries of the KPI registry are not sent." if dropped else None
