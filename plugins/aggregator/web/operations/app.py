"""The app of the Operations page."""

from __future__ import annotations

import hashlib
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from aggregator.core.params import problems
from aggregator.web.operations import access, analytics, assets, clicks, dags, kpi, ohlcv, overview, telemetry
from aggregator.web.operations.database import ReadError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import Request
    from fastapi.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

REASONS: Final = {400: "invalid", 401: "login", 403: "forbidden", 404: "not_found"}
"""Status of an error → its word for programs."""


files = APIRouter()


@files.get("/static/{version}/{name:path}", response_class=FileResponse, tags=["page"])
async def read_file(version: str, name: str) -> FileResponse:
    """Read a file of the page. The version changes with every file, so browsers keep files indefinitely."""
    if version != assets.VERSION or name not in assets.FILES:
        detail = f"The page has no file {name!r} in this version. Reload the page."
        raise ReadError(HTTPStatus.NOT_FOUND, "not_found", detail)
    path = assets.FILES[name]
    headers = {"Cache-Control": assets.FOREVER, "X-Content-Type-Options": "nosniff"}
    return FileResponse(path, media_type=assets.MEDIA_TYPES[path.suffix], headers=headers)


class EntityTags:
    """Middleware: an ``ETag`` for every JSON response, and 304 for a browser that has it.

    Args:
        app: The app.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request, one for HEAD as one for GET: the server leaves out its body."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        start: list[Message] = []
        body = b""

        async def hold(message: Message) -> None:
            nonlocal body
            if message["type"] == "http.response.start":
                if message["status"] != HTTPStatus.OK or "cache-control" in Headers(raw=message["headers"]):
                    await send(message)
                else:
                    start.append(message)
                return
            if not start:
                await send(message)
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                await self._finish(Headers(scope=scope), start[0], body, send)

        await self.app(scope, receive, hold)

    async def _finish(self, request: Headers, start: Message, body: bytes, send: Send) -> None:
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        headers = MutableHeaders(raw=start["headers"])
        # The cookie decides what a user may see, so no shared cache may keep a response.
        headers.update({"ETag": tag, "Cache-Control": "private, max-age=5", "Vary": "Cookie, Authorization"})
        if tag in request.get("if-none-match", ""):
            del headers["content-length"]
            start["status"], body = HTTPStatus.NOT_MODIFIED, b""
        await send(start)
        await send({"type": "http.response.body", "body": body})


def _error(status: int, reason: str, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse(
        {"detail": detail, "reason": reason}, int(status), {"Cache-Control": "no-store", **(headers or {})}
    )


async def _invalid(_: Request, error: Any) -> Response:
    return _error(HTTPStatus.BAD_REQUEST, "invalid", f"{problems(error.errors())}. Correct the request.")


async def _refused(_: Request, error: Any) -> Response:
    detail = access.FORBIDDEN if error.status_code == HTTPStatus.FORBIDDEN else str(error.detail)
    return _error(error.status_code, REASONS.get(error.status_code, "error"), detail, error.headers)


async def _unreadable(request: Request, error: Any) -> Response:
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.warning("GET %r failed with %d: %s", request.url.path, error.status, error.detail)
    retry = {"Retry-After": "30"} if error.status == HTTPStatus.SERVICE_UNAVAILABLE else None
    return _error(error.status, error.reason, error.detail, retry)


async def _broken(_: Request, error: Any) -> Response:
    # Starlette logs the exception. Its text may contain a password or a row.
    detail = f"The API server could not answer ({type(error).__name__}). Its log has the reason."
    return _error(HTTPStatus.INTERNAL_SERVER_ERROR, "error", detail)


app = FastAPI(
    title="Operations",
    summary="What the Operations page shows: products' tables, freshness and alerts. Read-only.",
    dependencies=[access.PAGE],
    middleware=[Middleware(EntityTags)],
    exception_handlers={
        RequestValidationError: _invalid,
        HTTPException: _refused,
        ReadError: _unreadable,
        Exception: _broken,
    },
)
for view in (overview, ohlcv, clicks, telemetry, analytics, kpi, dags):
    app.include_router(view.router)
app.include_router(files)
