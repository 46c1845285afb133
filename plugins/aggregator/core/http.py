"""What all HTTP endpoints share: reading the JSON body of a request, and models of responses."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from fastapi import HTTPException
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from aggregator.core import json_input

if TYPE_CHECKING:
    from fastapi import Request

RETRY_AFTER: Final = {"Retry-After": "30"}
"""Header of an answer to somebody who may ask again later: seconds."""


class Camel(BaseModel):
    """A model whose JSON is in camel case, as the product's callers know it."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


# Not as a body parameter: FastAPI would read and validate the body before it authorizes the sender.
async def read_json(request: Request, *, at_most: int, empty: Any = None) -> Any:
    """The JSON that a request has as its body.

    Args:
        request: The request.
        at_most: Bytes of the body.
        empty: What an empty body stands for; None if it is not allowed.

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
