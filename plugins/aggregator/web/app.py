"""The HTTP API: one FastAPI app for each prefix, with its authorization and its error responses.

Airflow mounts a plugin's app before its own routes, and a mount receives every path below its prefix. A single app at
``/api`` would return 404 for all of Airflow's own ``/api/v2``, so every prefix has an app.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from fastapi import APIRouter, Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError

from aggregator.core.errors import AggregatorError, PermanentError
from aggregator.core.params import problems
from aggregator.kpi import api as kpi
from aggregator.telemetry import api as telemetry
from aggregator.web import freshness, health
from aggregator.web.operations import assets
from aggregator.web.operations.app import app as operations
from aggregator.web.security import RequireSecret

if TYPE_CHECKING:
    from fastapi import Request
    from fastapi.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

log = logging.getLogger(__name__)

_UNAVAILABLE = (AggregatorError, SQLAlchemyError, TimeoutError)


async def _bad_request(_: Request, error: Exception) -> Response:
    found = error.errors() if isinstance(error, RequestValidationError) else []
    return JSONResponse({"detail": problems(found)}, HTTPStatus.BAD_REQUEST)


async def _unavailable(request: Request, error: Exception) -> Response:
    # The text of a foreign error may contain a password or a row.
    reason = error if isinstance(error, AggregatorError) else type(error).__name__
    log.error("%s %r failed with 503: %s", request.method, request.url.path, reason)
    cause = "a setting or a statement is wrong" if isinstance(error, PermanentError) else "a database is not available"
    detail = f"The request failed: {cause}. The API server's log names the reason. Send the request again later."
    return JSONResponse({"detail": detail}, HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": "30"})


async def _broken(_: Request, error: Exception) -> Response:
    # Starlette logs the exception after this.
    detail = f"The request failed ({type(error).__name__}). The API server's log has the reason."
    return JSONResponse({"detail": detail}, HTTPStatus.INTERNAL_SERVER_ERROR)


def _app(title: str, summary: str, router: APIRouter, *secrets: str) -> FastAPI:
    app = FastAPI(
        title=title,
        summary=summary,
        exception_handlers={
            RequestValidationError: _bad_request,
            **dict.fromkeys(_UNAVAILABLE, _unavailable),
            Exception: _broken,
        },
    )
    app.include_router(router, dependencies=[Depends(RequireSecret(name)) for name in secrets])
    return app


APPS: Final = {
    "/api/jobs": _app("Jobs", "Starts jobs for callers outside Airflow.", telemetry.router, "CRON_SECRET"),
    "/api/kpi": _app("KPI reports", "Receives KPI results from n8n.", kpi.router, "SCHEDULER_API_KEY"),
    "/api/health": _app("Health", "Whether KPI dispatch works.", health.router),
    "/api/freshness": _app("Freshness", "Whether the data is fresh.", freshness.router, "CRON_SECRET"),
    assets.PREFIX: operations,
}
"""Every app, by the prefix at which Airflow mounts it."""

_WITHOUT_SLASH = {"/api/health", "/api/freshness"}


class AppendSlash:
    """Root middleware: adds the slash without which a mount does not match its own prefix.

    Args:
        app: Airflow's API server.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request."""
        if scope["type"] == "http" and scope["path"].removeprefix(scope.get("root_path", "")) in _WITHOUT_SLASH:
            scope = {**scope, "path": f"{scope['path']}/"}
        await self.app(scope, receive, send)
