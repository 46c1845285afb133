"""HTTP interface of the stand-in."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request
from pydantic import BaseModel
from starlette.background import BackgroundTask
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response

from aggregator.analytics_engine import dialect
from dev.analytics_engine.store import DATASET_NAME, DATASETS, TIME_ZONES, QueryError, Store
from dev.stand_in.faults import Cut, Fault, Faults, with_close

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from starlette.types import ASGIApp

Result = TypeVar("Result")

STATEMENTS = {
    dialect.SHOW_TABLES: DATASETS,
    dialect.SHOW_TIMEZONES: TIME_ZONES,
    dialect.SHOW_TIMEZONE: "SELECT 'Etc/UTC' AS timezone",
}
"""The query for each statement that is not a SELECT."""

_LOOPBACK = frozenset({"127.0.0.1", "::1"})
_RECENT_REQUESTS = 1000


class EmptyRanges(BaseModel):
    """How a query of a range without rows ends. Analytics Engine is known to do both.

    Attributes:
        fail: Whether it returns 422 ``unable to find type of column`` (if it names columns), or no rows.
    """

    fail: bool = False


class AnalyticsEngine:
    """Datasets, the one thread that may use them, and the requests so far.

    Args:
        data: Folder of the datasets.
    """

    def __init__(self, data: Path) -> None:
        self.store: Store
        self._data = data
        self.reset()
        self._thread = ThreadPoolExecutor(1, "chdb")

    def reset(self) -> None:
        """Remove faults, settings and recorded requests. Datasets stay."""
        self.empty_ranges = EmptyRanges()
        self.faults = Faults()
        self.requests = 0
        self.recent: deque[str] = deque(maxlen=_RECENT_REQUESTS)

    @asynccontextmanager
    async def opened(self, _: FastAPI) -> AsyncIterator[None]:
        """Open the folder while the application runs."""
        self.store = await self.run(lambda: Store(self._data))
        yield
        await self.run(self.store.close)
        self._thread.shutdown()

    async def run(self, work: Callable[[], Result]) -> Result:
        """Call ``work`` in the thread, after the calls that are queued."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def query(self, sql: str) -> Response:
        """Run a query.

        Args:
            sql: The statement.

        Returns:
            The response of the SQL API.
        """
        try:
            query = dialect.parse(sql)
            file = await self.run(lambda: self._execute(query))
        except (dialect.DialectError, QueryError) as error:
            return PlainTextResponse(f"Input was invalid: {error}", HTTPStatus.UNPROCESSABLE_ENTITY)
        media_type = "application/json" if query.format == "JSON" else "text/plain"
        return FileResponse(file, media_type=media_type, background=BackgroundTask(file.unlink))

    def _execute(self, query: dialect.Query) -> Path:
        if query.text in STATEMENTS:
            return self.store.run(STATEMENTS[query.text], query.format)
        no_type = QueryError(f"unable to find type of column: {query.columns[0]}") if query.columns else None
        if query.dataset and query.dataset not in self.store.datasets():
            raise no_type or QueryError(f"unknown table: {query.dataset}")
        if self.empty_ranges.fail and query.probes and no_type:
            count = query.probes[0].removesuffix("FORMAT JSON")
            if self.store.first_row(count) == ["0"]:
                raise no_type
        return self.store.run(query.text, query.format)


def create_app(data: Path, *, token: str | None = None, account: str | None = None) -> ASGIApp:
    """Create the stand-in.

    Args:
        data: Folder of the datasets, created if missing. Only one process can have it open.
        token: The accepted bearer token; None accepts any.
        account: The accepted account id; None accepts any.

    Returns:
        The ASGI application, for one process and one event loop.
    """
    engine = AnalyticsEngine(data)
    app = FastAPI(title="Workers Analytics Engine stand-in", lifespan=engine.opened, openapi_url=None)
    app.include_router(_control(engine))

    @app.post("/client/v4/accounts/{account_id}/analytics_engine/sql")
    async def sql_api(account_id: str, request: Request) -> Response:
        sql = (await request.body()).decode(errors="surrogateescape")
        engine.requests += 1
        engine.recent.append(sql.encode(errors="replace").decode())
        fault = engine.faults.next() or Fault()
        await asyncio.sleep(fault.delay_seconds)
        response: Response
        if fault.status is not None:
            response = PlainTextResponse(fault.body, fault.status, fault.headers)
        else:
            authorization = request.headers.get("authorization")
            response = _refused(authorization, account_id, token, account) or await engine.query(sql)
        response.headers["cf-ray"] = f"{secrets.token_hex(8)}-LOC"
        return response if fault.truncate_after_bytes is None else Cut(response, fault.truncate_after_bytes)

    return with_close(app)


def _control(engine: AnalyticsEngine) -> APIRouter:
    router = APIRouter(dependencies=[Depends(_loopback_only)])
    router.include_router(_datasets(engine), prefix="/__control__")

    @router.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @router.delete("/__control__")
    async def reset() -> None:
        engine.reset()
        for dataset in await engine.run(engine.store.datasets):
            await engine.run(partial(engine.store.drop, dataset))

    @router.put("/__control__/faults")
    async def set_faults(faults: list[Fault]) -> None:
        engine.faults.replace(faults)

    @router.delete("/__control__/faults")
    async def clear_faults() -> None:
        engine.faults.replace([])

    @router.put("/__control__/empty_ranges")
    async def set_empty_ranges(empty_ranges: EmptyRanges) -> None:
        engine.empty_ranges = empty_ranges

    @router.get("/__control__/requests")
    async def requests() -> dict[str, Any]:
        return {"count": engine.requests, "recent": list(engine.recent)}

    return router


def _datasets(engine: AnalyticsEngine) -> APIRouter:
    router = APIRouter()

    @router.post("/datasets/{dataset}/events")
    async def write(
        dataset: str, request: Request, sample_above: Annotated[int | None, Query(ge=1)] = None
    ) -> dict[str, int]:
        _checked(dataset)
        file = engine.store.new_file()
        try:
            with file.open("wb") as lines:
                async for chunk in request.stream():
                    lines.write(chunk)
            return {"stored": await engine.run(lambda: engine.store.write(dataset, file, sample_above))}
        except QueryError as error:
            raise HTTPException(HTTPStatus.BAD_REQUEST, str(error)) from None
        finally:
            file.unlink()

    @router.delete("/datasets/{dataset}")
    async def drop(dataset: str) -> None:
        _checked(dataset)
        await engine.run(partial(engine.store.drop, dataset))

    return router


async def _loopback_only(request: Request) -> None:
    if request.client is None or request.client.host not in _LOOPBACK:
        raise HTTPException(HTTPStatus.FORBIDDEN)


def _checked(dataset: str) -> None:
    if not DATASET_NAME.fullmatch(dataset):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "The name of a dataset has at most 64 ASCII letters, digits and _.")


def _refused(authorization: str | None, account_id: str, token: str | None, account: str | None) -> Response | None:
    """Cloudflare's error for wrong credentials: JSON from its edge, plain text from the API; None if they are right."""
    if not authorization:
        return _envelope(HTTPStatus.BAD_REQUEST, 9106, "Missing X-Auth-Key, X-Auth-Email or Authorization headers")
    scheme, _, given = authorization.partition(" ")
    if scheme != "Bearer" or not given:
        return _envelope(HTTPStatus.UNAUTHORIZED, 10000, "Authentication error")
    if token is not None and not hmac.compare_digest(given.encode(), token.encode()):
        return PlainTextResponse("Authorization error", HTTPStatus.FORBIDDEN)
    if account is not None and account_id != account:
        return _envelope(HTTPStatus.FORBIDDEN, 10000, "Authentication error")
    return None


def _envelope(status: HTTPStatus, code: int, message: str) -> Response:
    content = {"success": False, "errors": [{"code": code, "message": message}], "messages": [], "result": None}
    return JSONResponse(content, status)
