"""What the answers of all APIs have in common."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

RETRY_AFTER: Final = {"Retry-After": "30"}
"""Header of an answer to somebody who may ask again later: seconds."""


class Camel(BaseModel):
    """A model whose JSON is in camel case, as the product's callers know it."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)
