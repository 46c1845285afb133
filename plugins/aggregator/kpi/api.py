"""``POST /api/kpi/{traceId}/{kpiId}``: n8n reports how the workflow of a KPI has ended (spec: KPI dispatch)."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, Literal

from airflow.sdk.exceptions import AirflowException
from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel, Field, ValidationError

from aggregator.core.errors import AggregatorError
from aggregator.core.http import RETRY_AFTER, Camel, read_json
from aggregator.core.params import problems
from aggregator.web.security import require_scheduler_api_key

if TYPE_CHECKING:
    from aggregator.kpi import jobs

log = logging.getLogger(__name__)

PREFIX = "/api/kpi"
"""Where the app is mounted."""

MAX_BODY = 64 * 1024
"""Bytes of a report."""

ANSWER_WITHIN = 10.0
"""Seconds after which a caller is asked to come again. What its report did until then stays: it can be repeated."""

# Threads of our own: they bound the connections to the database, and leave Airflow's to Airflow.
_THREADS = ThreadPoolExecutor(8, thread_name_prefix="kpi-reports")


class Report(BaseModel):
    """What n8n says.

    Attributes:
        status: How the workflow has ended.
        error: What went wrong.
    """

    status: Literal["completed", "failed"]
    error: str | None = Field(None, description="What went wrong; its first 2,000 characters are kept.")


class Stored(Camel):
    """What is stored of a KPI.

    Attributes:
        trace_id: The job.
        kpi_id: Which.
        status: Where it stands.
        repeated: Whether it stood there before.
    """

    trace_id: str
    kpi_id: str
    status: str
    repeated: bool


async def _reported(request: Request) -> Report:
    """The report of a request."""
    try:
        return Report.model_validate(await read_json(request, at_most=MAX_BODY))
    except ValidationError as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, problems(error.errors())) from None


app = FastAPI(
    title="KPI reports",
    summary="n8n reports how the workflows of KPIs have ended.",
    dependencies=[Depends(require_scheduler_api_key)],
)
_ANSWERS: dict[str, Any] = {
    "response_model": Stored,
    "responses": {
        400: {"description": "The body is not a report; nothing was stored."},
        401: {"description": "The bearer is missing or wrong."},
        404: {"description": "There is no such job, or no such KPI in it."},
        409: {"description": "The report cannot follow the KPI's status; nothing was stored."},
        413: {"description": "The body is too large."},
        503: {"description": "No key is configured, or the job records cannot be used now: report again later."},
    },
}
_BODY = {"requestBody": {"required": True, "content": {"application/json": {"schema": Report.model_json_schema()}}}}


@app.post("/{traceId}/{kpiId:path}", openapi_extra=_BODY, **_ANSWERS)
async def report(traceId: str, kpiId: str, given: Annotated[Report, Depends(_reported)]) -> Stored:  # noqa: N803 - the path's
    """Store how the workflow of a KPI has ended. The same report again changes nothing."""
    work = asyncio.get_running_loop().run_in_executor(_THREADS, _store, traceId, kpiId, given)
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            what, status = await work
    except (AggregatorError, AirflowException, TimeoutError) as error:
        reason = error if isinstance(error, AggregatorError) else type(error).__name__
        log.error("A report about %r of %r could not be stored: %s", kpiId, traceId, reason)  # noqa: TRY400
        detail = "The job records cannot be used now. Report again later."
        raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, detail, RETRY_AFTER) from None
    if what == "no such KPI":
        raise HTTPException(HTTPStatus.NOT_FOUND, "There is no such job, or no such KPI in it.")
    if what == "refused":
        detail = f"The KPI is {status.value}, and {given.status} cannot follow that."
        raise HTTPException(HTTPStatus.CONFLICT, detail)
    return Stored(trace_id=traceId, kpi_id=kpiId, status=status, repeated=what == "repeated")


def _store(trace_id: str, kpi_id: str, given: Report) -> tuple[jobs.Report, jobs.Status]:
    # Every process of Airflow loads this plugin; few get a report.
    from datetime import timedelta

    from aggregator.kpi import jobs
    from aggregator.postgres.hook import PostgresTransactionHook

    if "\0" in trace_id + kpi_id:
        return jobs.Report.NO_SUCH_KPI, jobs.Status.UNKNOWN
    hook = PostgresTransactionHook(jobs.CONNECTION)
    with hook.transaction(
        timeout=timedelta(seconds=ANSWER_WITHIN), application_name="aggregator/kpi-reports"
    ) as cursor:
        return jobs.report(cursor, trace_id, kpi_id, given.status, given.error)
