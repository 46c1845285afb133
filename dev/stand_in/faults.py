"""Faults on demand: what the stand-in answers instead of the truth."""

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
    """One way to fail.

    Attributes:
        status: HTTP status to answer with; None for the true answer, late or cut.
        body: Text to answer with, if there is a status.
        headers: Headers of that answer, such as ``Retry-After``.
        delay_seconds: How long to wait before answering.
        truncate_after_bytes: Close the connection after so many bytes of the body, whose whole length was announced; 0
            closes it without any answer.
        times: How many requests it meets; None for all that follow, until it is cleared.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: PositiveInt | None = None
    body: str = ""
    headers: dict[str, str] = {}
    delay_seconds: NonNegativeFloat = 0
    truncate_after_bytes: NonNegativeInt | None = None
    times: PositiveInt | None = 1


class Faults:
    """Faults that wait for their requests, in order."""

    def __init__(self) -> None:
        self._waiting: Iterator[Fault] = iter(())

    def replace(self, faults: Iterable[Fault]) -> None:
        """Queue ``faults``; what still waited is forgotten."""
        self._waiting = chain.from_iterable(
            repeat(fault) if fault.times is None else repeat(fault, fault.times) for fault in faults
        )

    def next(self) -> Fault | None:
        """Take the fault for the request at hand, if one waits."""
        return next(self._waiting, None)


class Cut(Response):
    """The beginning of another response, whose whole length is announced."""

    def __init__(self, whole: Response, after_bytes: int) -> None:
        super().__init__()
        self._whole = whole
        self._left = after_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the beginning, and close the connection."""
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
    """Give handlers what ASGI does not have: closing the connection in the middle of an answer.

    Uvicorn's ``send`` is a method of the object that holds the transport; middlewares hide it further in.
    """

    async def outermost(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope[_CLOSE] = send.__self__.transport.close  # type: ignore[attr-defined]
        await app(scope, receive, send)

    return outermost
