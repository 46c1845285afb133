"""HTTP endpoints of the stand-in."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections import defaultdict
from http import HTTPStatus
from itertools import count
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import httpx
from fastapi import APIRouter, FastAPI, Request
from pydantic import BaseModel, ConfigDict, NonNegativeFloat
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse, PlainTextResponse, Response

from dev.n8n.faults import UNREGISTERED
from dev.stand_in.faults import Cut, Fault, Faults, with_close

if TYPE_CHECKING:
    from starlette.types import ASGIApp


class Workflow(BaseModel):
    """A workflow that starts with a webhook.

    Attributes:
        method: HTTP method of the webhook.
        active: Whether the webhook is registered.
        protected: Whether the webhook requires the key (header authentication).
        fails: Whether a node fails while the caller waits.
        breaks: Whether n8n loses track of the execution while the caller waits.
        reports: Status that it reports at its end, if the stand-in has a base URL for reports.
        report_after: Seconds until the report.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str = "POST"
    active: bool = True
    protected: bool = True
    fails: bool = False
    breaks: bool = False
    reports: Literal["completed", "failed"] | None = None
    report_after: NonNegativeFloat = 0.2


class N8n:
    """Registered workflows, requests and executions.

    Args:
        key: Key of protected webhooks; None accepts any key.
        reports_to: Base URL for reports, without ``/{traceId}/{kpiId}``; None disables reports.
        secret: Bearer token of the reports.
    """

    def __init__(self, key: str | None, reports_to: str | None, secret: str | None) -> None:
        self.key = key
        self.reports_to = reports_to
        self.secret = secret
        self.reset()

    def reset(self) -> None:
        """Remove all workflows, faults, requests and executions."""
        self.workflows: dict[str, Workflow] = {}
        self.faults: defaultdict[str, Faults] = defaultdict(Faults)
        self.boot = Faults()
        self.requests: list[dict[str, Any]] = []
        self.executions: list[dict[str, Any]] = []
        self._ids = count(1)

    def respond(self, path: str, request: Request, body: Any) -> Response:
        """Return n8n's response to a call of a production webhook, and record the execution."""
        workflow = self.workflows.get(path)
        if workflow is None or not workflow.active:
            return _not_registered(
                f'The requested webhook "{request.method} {path}" is not registered.',
                hint="The workflow must be active for a production URL to run successfully. You can activate the "
                "workflow using the toggle in the top-right of the editor. Note that unlike test URL calls, production "
                "URL calls aren't shown on the canvas (only in the executions list)",
            )
        if workflow.method != request.method:
            return _not_registered(
                f"This webhook is not registered for {request.method} requests. Did you mean to make a "
                f"{workflow.method} request?"
            )
        if workflow.protected and not self._has_key(request.headers.get("Authorization", "")):
            return PlainTextResponse("Authorization data is wrong!", HTTPStatus.FORBIDDEN)
        execution = {
            "id": next(self._ids),
            "path": path,
            "arrived_at": time.time(),
            "idempotency_key": request.headers.get("Idempotency-Key"),
            "body": body,
        }
        self.executions.append(execution)
        if workflow.fails:
            return JSONResponse({"message": "Error in workflow"}, HTTPStatus.INTERNAL_SERVER_ERROR)
        if workflow.breaks:
            problem = {"code": 0, "message": "There was a problem executing the workflow"}
            return JSONResponse(problem, HTTPStatus.INTERNAL_SERVER_ERROR)
        report = BackgroundTask(self._report, workflow, body) if workflow.reports and self.reports_to else None
        return JSONResponse({"message": "Workflow was started"}, background=report)

    def preflight(self, path: str, request: Request) -> Response:
        """Return n8n's response to OPTIONS: the methods that are registered for a path. It starts nothing."""
        workflow = self.workflows.get(path)
        methods = ["OPTIONS", *([workflow.method] if workflow is not None and workflow.active else [])]
        headers = {"Access-Control-Allow-Methods": ", ".join(methods)} if "Origin" in request.headers else {}
        return Response(status_code=HTTPStatus.NO_CONTENT, headers=headers)

    def _has_key(self, authorization: str) -> bool:
        return self.key is None or hmac.compare_digest(authorization.encode(), f"Bearer {self.key}".encode())

    async def _report(self, workflow: Workflow, body: Any) -> None:
        await asyncio.sleep(workflow.report_after)
        path = "/".join(quote(str(body.get(name)), safe="") for name in ("traceId", "kpiId"))
        content = {"status": workflow.reports, "error": "A node failed" if workflow.reports == "failed" else None}
        async with httpx.AsyncClient(trust_env=False) as client:
            await client.post(
                f"{self.reports_to}/{path}", json=content, headers={"Authorization": f"Bearer {self.secret}"}
            )


def create_app(key: str | None = None, reports_to: str | None = None, secret: str | None = None) -> ASGIApp:
    """Return the stand-in as an ASGI application. The arguments are those of `N8n`."""
    n8n = N8n(key, reports_to, secret)
    app = FastAPI(title="n8n stand-in", openapi_url=None)
    app.include_router(_control(n8n))

    @app.api_route("/webhook/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
    async def webhook(path: str, request: Request) -> Response:
        content = await request.body()
        body = await request.json() if content else None
        n8n.requests.append({"path": path, "headers": dict(request.headers), "body": body})
        fault = n8n.boot.next() or n8n.faults[path].next() or Fault()
        response: Response
        if fault.status is not None:
            response = PlainTextResponse(fault.body, fault.status, {**fault.headers})
        else:
            response = n8n.preflight(path, request) if request.method == "OPTIONS" else n8n.respond(path, request, body)
        await asyncio.sleep(fault.delay_seconds)
        return response if fault.truncate_after_bytes is None else Cut(response, fault.truncate_after_bytes)

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
    async def anything_else(path: str) -> Response:  # noqa: ARG001 - part of the route
        fault = n8n.boot.next() or UNREGISTERED
        return PlainTextResponse(fault.body, fault.status or HTTPStatus.OK, {**fault.headers})

    return with_close(app)


def _control(n8n: N8n) -> APIRouter:
    router = APIRouter()

    @router.get("/healthz")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @router.delete("/__control__")
    async def reset() -> None:
        n8n.reset()

    @router.put("/__control__/workflows")
    async def register(workflows: dict[str, Workflow]) -> None:
        n8n.workflows.update(workflows)

    @router.put("/__control__/faults")
    async def set_faults(faults: dict[str, list[Fault]]) -> None:
        for path, waiting in faults.items():
            n8n.faults[path].replace(waiting)

    @router.put("/__control__/boot")
    async def boot(pages: list[Fault]) -> None:
        n8n.boot.replace(pages)

    @router.get("/__control__/executions")
    async def executions() -> list[dict[str, Any]]:
        return n8n.executions

    @router.get("/__control__/requests")
    async def requests() -> list[dict[str, Any]]:
        return n8n.requests

    return router


def _not_registered(message: str, **more: str) -> Response:
    return JSONResponse({"code": 404, "message": message, **more}, HTTPStatus.NOT_FOUND)
