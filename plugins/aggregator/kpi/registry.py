"""The KPI registry: the Airflow Variable ``kpi-registry``, a JSON document that people edit.

``python -m aggregator.kpi.registry`` checks, shows and changes it.
"""

from __future__ import annotations

import math
import re
import sys
import unicodedata
from typing import Annotated, Any, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    HttpUrl,
    JsonValue,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel

from aggregator.core.errors import PermanentError
from aggregator.core.json_input import MAX_DEPTH, SURROGATE, TOO_DEEP, parse_leniently

VARIABLE = "kpi-registry"
"""Name of the Airflow Variable."""

MAX_BYTES = 4 * 1024 * 1024
"""Maximum size of the registry in bytes, enough for thousands of KPIs."""

_URL = TypeAdapter(HttpUrl)


class RegistryError(PermanentError):
    """The registry is missing or unreadable. Nothing was sent."""


def _text(value: str) -> str:
    if not value.strip():
        msg = "must not be blank"
        raise ValueError(msg)
    return value


def _web_address(value: str) -> str:
    url = _URL.validate_python(value)
    if url.username is not None or url.password is not None:
        msg = "must not contain credentials: they would be logged. Put the API key in the n8n connection"
        raise ValueError(msg)
    # The parser's form, so that the check of the host and the connection use the same host.
    return str(url)


def normalized(value: Any) -> Any:
    """Normalize an id to Unicode NFC, so that equal texts are equal ids."""
    return unicodedata.normalize("NFC", value) if isinstance(value, str) else value


def _identifier(value: str) -> str:
    if value != value.strip():
        msg = "must not begin or end with whitespace"
        raise ValueError(msg)
    if _INVISIBLE.search(value):
        msg = "must not contain control or invisible characters"
        raise ValueError(msg)
    if value in {".", ".."}:
        msg = "must not be . or .., because n8n could not report back to such a URL"
        raise ValueError(msg)
    return value


_INVISIBLE = re.compile(r"[\u0000-\u001f\u007f-\u009f\u00ad\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
"""Control characters, line separators, text direction marks, and zero-width characters except joiners."""

Text = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_text)]
Identifier = Annotated[
    str,
    Field(min_length=1, max_length=200),
    BeforeValidator(normalized),
    AfterValidator(_text),
    AfterValidator(_identifier),
    WithJsonSchema(
        {
            "type": "string",
            "minLength": 1,
            "maxLength": 200,
            "pattern": rf"^(?![\s\S]*{_INVISIBLE.pattern})(?!\s)(?![\s\S]*\s$)(?!\.\.?$)",
        }
    ),
]


class Kpi(BaseModel):
    """A registry entry."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        field_title_generator=lambda name, _: name.replace("_", " "),
    )

    id: Identifier = Field(
        description="Identifies the KPI in Airflow, in the job record, and in n8n's requests and reports."
    )
    name: Text = Field(description="Display name; sent to n8n.")
    description: str = Field("", max_length=2000, description="Description; sent to n8n.")
    type: Text = Field(description="Category, such as `price`; sent to n8n.")
    active: bool = Field(
        default=False, strict=True, description="Only active KPIs are sent. Inactive entries are not validated."
    )
    webhook_url: Annotated[
        str,
        Field(max_length=2000, description="URL of the n8n workflow: http or https, without credentials."),
        AfterValidator(_web_address),
        WithJsonSchema({"type": "string", "format": "uri", "pattern": "^https?://", "maxLength": 2000}),
    ]
    report_back: bool = Field(
        default=False,
        strict=True,
        description="Whether n8n reports the end of the workflow. The run waits for the report.",
    )
    analysis_config: dict[str, JsonValue] | None = Field(
        None, description="Not used. For other readers of the registry."
    )
    metadata: dict[str, JsonValue] | None = Field(None, description="Any data; stored in the job record.")


class RegistryDocument(BaseModel):
    """The whole registry, for its JSON schema."""

    kpis: list[Kpi]
    metadata: dict[str, JsonValue] | None = Field(None, description="Not used.")


class Dropped(NamedTuple):
    """An active entry that is invalid and not sent.

    Attributes:
        name: Its id, or its position in the list if it has none.
        reason: The problem, without the invalid value.
    """

    name: str
    reason: str


class Registry(NamedTuple):
    """A parsed registry.

    Attributes:
        kpis: Valid active KPIs, in the order of the registry.
        dropped: Active entries that are invalid.
    """

    kpis: list[Kpi]
    dropped: list[Dropped]


def parse(text: str | None) -> Registry:
    """Parse a registry.

    Args:
        text: Value of the Variable; None if it does not exist.

    Returns:
        The valid active KPIs, and the dropped entries. An entry is dropped if a field is missing or invalid, if an
        earlier entry has the same id, or if PostgreSQL cannot store it.

    Raises:
        RegistryError: The registry is missing, too large, not JSON, or not an object with a list ``kpis``.
    """
    registry = Registry([], [])
    seen: set[str] = set()
    for index, entry in enumerate(_entries(text)):
        if isinstance(entry, dict) and entry.get("active", False) is False:
            continue
        reason = _unstorable(entry)
        if reason is None:
            try:
                kpi = Kpi.model_validate(entry)
            except ValidationError as error:
                reason = "; ".join(_problem(found) for found in error.errors())
            else:
                if kpi.id not in seen:
                    seen.add(kpi.id)
                    registry.kpis.append(kpi)
                    continue
                reason = "id: an earlier entry has the same id and is used"
        registry.dropped.append(Dropped(_name(entry, index), reason))
    return registry


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of the registry."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **RegistryDocument.model_json_schema(),
        "title": f"Airflow Variable {VARIABLE}",
    }


def _entries(text: str | None) -> list[Any]:
    if text is None or not text.strip():
        msg = f"There is no KPI registry. Nothing was sent. Create the Airflow Variable {VARIABLE}."
        raise RegistryError(msg)
    content = text.encode(errors="surrogatepass")
    if len(content) > MAX_BYTES:
        msg = f"The KPI registry has {len(content):,} bytes, more than {MAX_BYTES:,}. Nothing was sent. Remove entries."
        raise RegistryError(msg)
    try:
        document = parse_leniently(text)
    except ValueError as error:
        msg = f"The KPI registry is not JSON: {error}. Nothing was sent. Correct the Airflow Variable {VARIABLE}."
        raise RegistryError(msg) from None
    entries = document.get("kpis") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        msg = f'The KPI registry is not {{"kpis": [...]}}. Nothing was sent. Correct the Airflow Variable {VARIABLE}.'
        raise RegistryError(msg)
    return entries


def _unstorable(value: Any) -> str | None:
    """Why PostgreSQL cannot store a value as jsonb; None if it can."""
    if isinstance(value, str):
        if value == TOO_DEEP:
            return f"has more than {MAX_DEPTH} levels of nesting"
        if SURROGATE.search(value):
            return "contains half of a surrogate pair, which is not a character"
        return "contains a NUL character, which PostgreSQL cannot store" if "\0" in value else None
    if isinstance(value, float):
        return None if math.isfinite(value) else "contains a number that is too large"
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return next(filter(None, map(_unstorable, parts)), None)


def _problem(error: Any) -> str:
    # The top-level field only: deeper locations may contain values.
    field = str(error["loc"][0]) if error["loc"] else ""
    return ": ".join(filter(None, [field, error["msg"].removeprefix("Value error, ")]))


def _name(entry: Any, index: int) -> str:
    id_ = entry.get("id") if isinstance(entry, dict) else None
    # Escaped, so that control characters cannot forge log lines.
    return repr(id_)[1:-1][:60] if isinstance(id_, str) and id_ else f"kpis[{index}]"


def load() -> str | None:
    """Read the Variable outside of tasks. Returns None if it does not exist."""
    # This import takes seconds. Tasks use airflow.sdk instead.
    from airflow.models.variable import Variable

    text: str | None = Variable.get(VARIABLE, default_var=None)
    return text


if __name__ == "__main__":
    from aggregator.kpi.cli import main

    sys.exit(main())
