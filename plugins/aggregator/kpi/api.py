"""``POST /api/kpi/{traceId}/{kpiId}``: n8n reports how the workflow of a KPI ended."""

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
"""Maximum size of a report in bytes."""

RESPONSE_TIMEOUT = 10.0
"""Seconds until the response is 503. The report may be stored even so, and it can be repeated."""

_THREADS = Threads("kpi-reports", 8)


class Report(BaseModel):
    """Body of a report: how the workflow ended."""

    status: Literal["completed", "failed"]
    error: str | None = Field(None, description="Error message. The first 2,000 characters are stored.")


class Stored(Camel):
    """Response to a stored report, with the KPI's status, and whether the same report was stored before."""

    trace_id: str
    kpi_id: str
    status: str
    repeated: bool


async def _body(request: Request) -> Report:
    """Parse the body of a request."""
    return validate(Report, await read_json(request, at_most=MAX_BODY))


router = APIRouter()
_DOCUMENTED: dict[str, Any] = {
    "response_model": Stored,
    "responses": {
        400: {"description": "The body is not a report. Nothing was stored."},
        401: {"description": "The bearer token is missing or wrong."},
        404: {"description": "There is no such job, or no such KPI in it."},
        409: {"description": "The report contradicts the KPI's status. Nothing was stored."},
        413: {"description": "The body is too large."},
        503: {"description": "No key is configured, or the job records are unavailable. Report again later."},
    },
}
_OPENAPI = {"requestBody": {"required": True, "content": {"application/json": {"schema": Report.model_json_schema()}}}}


@router.post("/{traceId}/{kpiId:path}", openapi_extra=_OPENAPI, **_DOCUMENTED)
async def report(traceId: str, kpiId: str, given: Annotated[Report, Depends(_body)]) -> Stored:  # noqa: N803 - the path's
    """Store how the workflow of a KPI ended. A repeated report changes nothing."""
    result, status = await _THREADS.run(_store, traceId, kpiId, given, timeout=RESPONSE_TIMEOUT)
    if result == "no such KPI":
        raise HTTPException(HTTPStatus.NOT_FOUND, "There is no such job, or no such KPI in it.")
    if result == "refused":
        detail = f"The KPI is {status.value}, so its status cannot change to {given.status}. Nothing was stored."
        raise HTTPException(HTTPStatus.CONFLICT, detail)
    return Stored(trace_id=traceId, kpi_id=kpiId, status=status, repeated=result == "repeated")


def _store(trace_id: str, kpi_id: str, given: Report) -> tuple[jobs.Report, jobs.Status]:
    if "\0" in trace_id + kpi_id:
        return jobs.Report.NO_SUCH_KPI, jobs.Status.UNKNOWN
    hook = PostgresTransactionHook(jobs.CONNECTION)
    with hook.transaction(
        timeout=timedelta(seconds=RESPONSE_TIMEOUT), application_name="aggregator/kpi-reports"
    ) as cursor:
        return jobs.report(cursor, trace_id, kpi_id, given.status, given.error)
