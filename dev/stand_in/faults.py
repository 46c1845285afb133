"""Faults on demand: responses of a stand-in that replace the real ones."""

from __future__ import annotations

from itertools import chain, repeat
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt, PositiveInt
from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_CLOSE = "close_connection"


class Fault(BaseModel):
    """One fault.

    Attributes:
        status: HTTP status of the response; None for the real response, late or truncated.
        body: Body of the response, if there is a status.
        headers: Headers of the response, such as ``Retry-After``.
        delay_seconds: Seconds before the response.
        truncate_after_bytes: Close the connection after this number of bytes of the body, with a ``Content-Length`` of
            the complete body; 0 closes it without a response.
        times: Number of requests that get the fault; None for all requests until the faults are replaced.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: PositiveInt | None = None
    body: str = ""
    headers: dict[str, str] = {}
    delay_seconds: NonNegativeFloat = 0
    truncate_after_bytes: NonNegativeInt | None = None
    times: PositiveInt | None = 1


class Faults:
    """Queue of faults."""

    def __init__(self) -> None:
        self._queue: Iterator[Fault] = iter(())

    def replace(self, faults: Iterable[Fault]) -> None:
        """Replace the queue."""
        self._queue = chain.from_iterable(
            repeat(fault) if fault.times is None else repeat(fault, fault.times) for fault in faults
        )

    def next(self) -> Fault | None:
        """Return the fault for the current request, or None."""
        return next(self._queue, None)


class Cut(Response):
    """The beginning of another response, with the ``Content-Length`` of the complete one."""

    def __init__(self, whole: Response, after_bytes: int) -> None:
        super().__init__()
        self._whole = whole
        self._left = after_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the beginning and close the connection."""
        nothing = self._left == 0

        async def cut(message: Message) -> None:
            if nothing or self._left < 0:
                return
            body = message.get("body", b"")
            if message["type"] == "http.response.body":
                message = {"type": "http.response.body", "body": body[: self._left], "more_body": True}
                self._left -= len(body)
            await send(message)

        await self._whole(scope, receive, cut)
        scope[_CLOSE]()


def with_close(app: ASGIApp) -> ASGIApp:
    """Let handlers close the connection in the middle of a response, which ASGI does not support.

    Uvicorn's ``send`` is a method of the object with the transport. Inner middlewares replace ``send``.
    """

    async def outermost(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope[_CLOSE] = send.__self__.transport.close  # type: ignore[attr-defined]
        await app(scope, receive, send)

    return outermost
