"""``GET`` and ``POST /api/jobs/telemetry-daily``: start a run of ``telemetry_daily`` (spec: telemetry)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any

from airflow.api.common.trigger_dag import trigger_dag
from airflow.exceptions import DagNotFound
from airflow.models.dagrun import DagRun
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, State
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.responses import JSONResponse
from pendulum import now
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select

from aggregator.core.http import Camel, Threads, read_json, validate
from aggregator.core.params import is_future
from aggregator.core.text import run_link
from aggregator.telemetry.params import TelemetryDailyParams

if TYPE_CHECKING:
    from fastapi.responses import Response

DAG_ID = "telemetry_daily"
TASK_ID = "roll_up_telemetry"

MAX_BODY = 1024 * 1024
"""Largest body, in bytes."""

MAX_WAIT = 120.0
"""Time limit of ``wait``, in seconds; after it the response is the same as without ``wait``."""

POLL_INTERVAL = 1.0
"""Seconds between two polls of a run."""

RESPONSE_TIMEOUT = 10.0
"""Seconds for the start of a run; after it the response is 503. The run may start even so, and it can be repeated."""

_THREADS = Threads("telemetry-jobs", 8)


class Job(TelemetryDailyParams):
    """Parameters of a request; with ``wait``, the response is the result of the finished run."""

    model_config = ConfigDict(extra="forbid")

    wait: bool = False


class StartedRun(Camel):
    """A started run: its ID in Airflow, and the URL of its page."""

    run_id: str
    link: str


class Rollup(BaseModel):
    """One day of one event type."""

    date: str
    event: str
    count: int
    unique_users: int


class Result(BaseModel):
    """Result of a run: the numbers of rollups, one line per refused event type, and the first 1,000 rollups."""

    success: bool
    processed: int
    inserted: int
    updated: int
    unchanged: int
    errors: list[str]
    results: list[Rollup]


async def _merge(request: Request) -> Job:
    """Merge the query and the JSON body of a POST."""
    body = await read_json(request, at_most=MAX_BODY, empty={})
    if not isinstance(body, dict):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "The body is not a JSON object.")
    return validate(Job, {**request.query_params, **body})


router = APIRouter()
_RESPONSES: dict[str, Any] = {
    "status_code": HTTPStatus.ACCEPTED,
    "response_model": StartedRun,
    "responses": {
        200: {"model": Result, "description": "With `wait`: the run succeeded."},
        400: {"description": "A parameter is invalid. Nothing was started."},
        401: {"description": "The bearer is missing or wrong."},
        413: {"description": "The body is too large. Nothing was started."},
        500: {
            "model": Result,
            "description": "With `wait`: the run failed. What is not in `errors` is stored.",
        },
        503: {"description": "No secret is configured, or Airflow cannot start a run. Send the request again later."},
    },
}
_BODY = {
    "requestBody": {
        "content": {"application/json": {"schema": Job.model_json_schema()}},
        "description": "The query parameters of GET. POST accepts them in the query, too.",
    }
}


@router.head("/telemetry-daily", include_in_schema=False)
async def check_get(job: Annotated[Job, Query()]) -> None:
    """Check the bearer and the parameters as GET does, and start nothing. Monitors send HEAD at any rate."""
    _refuse_future(job)


@router.get("/telemetry-daily", **_RESPONSES)
async def start_by_get(job: Annotated[Job, Query()]) -> Response:
    """Start a run of telemetry_daily for the latest complete UTC day, or for a range of days."""
    return await _start(job)


@router.post("/telemetry-daily", openapi_extra=_BODY, **_RESPONSES)
async def start_by_post(job: Annotated[Job, Depends(_merge)]) -> Response:
    """Start a run of telemetry_daily for the latest complete UTC day, or for a range of days."""
    return await _start(job)


def _refuse_future(job: Job) -> None:
    today = now("UTC").date()
    for name, day in (("startDate", job.start_date), ("endDate", job.end_date)):
        if is_future(day, today):
            raise HTTPException(HTTPStatus.BAD_REQUEST, f"{name}: {day} is after {today}, the current UTC day")


async def _start(job: Job) -> Response:
    _refuse_future(job)
    run_id = await _THREADS.run(_trigger, job, timeout=RESPONSE_TIMEOUT)
    link = run_link(DAG_ID, run_id)
    if job.wait:
        with suppress(TimeoutError):
            async with asyncio.timeout(MAX_WAIT):
                while (result := await _THREADS.run(_result, run_id, timeout=None)) is None:  # noqa: ASYNC110 - the run ends in another process
                    await asyncio.sleep(POLL_INTERVAL)
            return JSONResponse(result, HTTPStatus.OK if result["success"] else HTTPStatus.INTERNAL_SERVER_ERROR)
    started = StartedRun(run_id=run_id, link=link)
    return JSONResponse(started.model_dump(by_alias=True), HTTPStatus.ACCEPTED, {"Location": link})


def _trigger(job: Job) -> str:
    due = now("UTC")
    run_id = DagRun.generate_run_id(run_type=DagRunType.MANUAL, run_after=due)
    params = job.model_dump(mode="json", by_alias=True, exclude={"wait"}, exclude_none=True)
    try:
        trigger_dag(DAG_ID, triggered_by=DagRunTriggeredByType.REST_API, run_after=due, run_id=run_id, conf=params)
    except DagNotFound:
        raise HTTPException(
            HTTPStatus.SERVICE_UNAVAILABLE, f"Airflow has not loaded {DAG_ID} yet. Send the request again later."
        ) from None
    return run_id


def _result(run_id: str) -> dict[str, Any] | None:
    """The result of a run; None while it has not finished."""
    with create_session(scoped=False) as session:
        state = session.scalar(select(DagRun.state).where(DagRun.dag_id == DAG_ID, DagRun.run_id == run_id))
        if state not in State.finished_dr_states:
            return None
        query = XComModel.get_many(run_id=run_id, key="return_value", dag_ids=DAG_ID, task_ids=TASK_ID)
        returned = session.scalars(query).first()
        if returned is not None:
            result: dict[str, Any] = XComModel.deserialize_value(returned)
            return result
    error = f"Run {run_id} is {DagRunState(state).value} and has no result. See the log of its task."
    nothing = dict.fromkeys(("processed", "inserted", "updated", "unchanged"), 0)
    return {"success": False, **nothing, "errors": [error], "results": []}
