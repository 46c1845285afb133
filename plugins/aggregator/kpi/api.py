"""``POST /api/kpi/{traceId}/{kpiId}``: n8n reports how the workflow of a KPI has ended (spec: KPI dispatch)."""

from __future__ import annotations

from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Request
from pydantic import BaseModel, Field

from aggregator.core.http import Camel, Threads, read_json, validate
from aggregator.kpi import jobs
from aggregator.postgres.hook import PostgresTransactionHook

MAX_BODY = 64 * 1024
"""Bytes of a report."""

ANSWER_WITHIN = 10.0
"""Seconds after which a caller is asked to come again. What its report did until then stays: it can be repeated."""

_THREADS = Threads("kpi-reports", 8)


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
    return validate(Report, await read_json(request, at_most=MAX_BODY))


router = APIRouter()
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


@router.post("/{traceId}/{kpiId:path}", openapi_extra=_BODY, **_ANSWERS)
async def report(traceId: str, kpiId: str, given: Annotated[Report, Depends(_reported)]) -> Stored:  # noqa: N803 - the path's
    """Store how the workflow of a KPI has ended. The same report again changes nothing."""
    what, status = await _THREADS.run(_store, traceId, kpiId, given, timeout=ANSWER_WITHIN)
    if what == "no such KPI":
        raise HTTPException(HTTPStatus.NOT_FOUND, "There is no such job, or no such KPI in it.")
    if what == "refused":
        detail = f"The KPI is {status.value}, and {given.status} cannot follow that."
        raise HTTPException(HTTPStatus.CONFLICT, detail)
    return Stored(trace_id=traceId, kpi_id=kpiId, status=status, repeated=what == "repeated")


def _store(trace_id: str, kpi_id: str, given: Report) -> tuple[jobs.Report, jobs.Status]:
    if "\0" in trace_id + kpi_id:
        return jobs.Report.NO_SUCH_KPI, jobs.Status.UNKNOWN
    hook = PostgresTransactionHook(jobs.CONNECTION)
    with hook.transaction(
        timeout=timedelta(seconds=ANSWER_WITHIN), application_name="aggregator/kpi-reports"
    ) as cursor:
        return jobs.report(cursor, trace_id, kpi_id, given.status, given.error)
