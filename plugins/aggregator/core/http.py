"""Shared parts of the HTTP endpoints: request bodies, response models, and threads for blocking calls."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import HTTPException
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from aggregator.core import json_input
from aggregator.core.params import problems

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import Request

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


class Camel(BaseModel):
    """A model with camel-case names in JSON."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Threads:
    """A bounded thread pool for the blocking calls of one endpoint.

    The bound also limits the endpoint's database connections. Calls that hang block neither Airflow's threads nor
    those of another endpoint.

    Args:
        name: Prefix of the thread names.
        size: Number of threads.
    """

    def __init__(self, name: str, size: int) -> None:
        self._pool = ThreadPoolExecutor(size, thread_name_prefix=name)

    async def run(self, call: Callable[..., T], *args: Any, timeout: float | None) -> T:  # noqa: ASYNC109 - the callers' limit
        """Run a blocking call in a thread.

        Args:
            call: The function.
            *args: Its arguments.
            timeout: Seconds to wait for the result, including the wait for a thread; None waits indefinitely.

        Raises:
            TimeoutError: There is no result in time. A call that has started continues.
        """
        async with asyncio.timeout(timeout):
            return await asyncio.get_running_loop().run_in_executor(self._pool, partial(call, *args))


# Not a body parameter: FastAPI would read and validate the body before it checks the bearer.
async def read_json(request: Request, *, at_most: int, empty: Any = None) -> Any:
    """Read the JSON body of a request.

    Args:
        request: The request.
        at_most: Largest body, in bytes.
        empty: Value of an empty body; None refuses an empty body.

    Raises:
        HTTPException: 413 if the body is too large, 400 if it is not JSON.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > at_most:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body has more than {at_most} bytes.")
    if not body and empty is not None:
        return empty
    try:
        return json_input.parse(body)
    except ValueError as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"The body is not JSON that can be read: {error}.") from None


def validate(model: type[M], value: object) -> M:
    """Validate what a caller sent.

    Raises:
        HTTPException: 400 with every problem, by the names that the caller used.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, problems(error.errors())) from None
