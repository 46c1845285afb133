"""The KPI registry: the Airflow Variable ``kpi-registry``, JSON as people edit it (spec: KPI dispatch, registry).

python -m aggregator.kpi.registry [FILE | -]
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple
from urllib.parse import urlsplit

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

from aggregator.core.errors import AggregatorError, PermanentError
from aggregator.core.json_input import MAX_DEPTH, SURROGATE, TOO_DEEP, parse_leniently

if TYPE_CHECKING:
    from collections.abc import Sequence

VARIABLE = "kpi-registry"
"""The Airflow Variable that holds the registry."""

MAX_BYTES = 4 * 1024 * 1024
"""The largest registry that is read: thousands of KPIs."""

_URL = TypeAdapter(HttpUrl)


class RegistryError(PermanentError):
    """There is no registry that could be read; nothing was sent."""


def _text(value: str) -> str:
    if not value.strip():
        msg = "must not be blank"
        raise ValueError(msg)
    return value


def _web_address(value: str) -> str:
    url = _URL.validate_python(value)
    if url.username is not None or url.password is not None:
        msg = "must not hold credentials: they would be in logs; the n8n connection has the key"
        raise ValueError(msg)
    # As the parser understood it: whoever judges the host and whoever connects to it shall see the same one.
    return str(url)


def normalized(value: Any) -> Any:
    """An id in Unicode's form NFC, so that equal texts are equal ids; anything else as it is.

    Args:
        value: What is given as an id.
    """
    return unicodedata.normalize("NFC", value) if isinstance(value, str) else value


def _identifier(value: str) -> str:
    if value != value.strip():
        msg = "must not begin or end with a blank"
        raise ValueError(msg)
    if _INVISIBLE.search(value):
        msg = "must not have control or invisible characters"
        raise ValueError(msg)
    if value in {".", ".."}:
        msg = "must not be . or .., which a URL cannot name: n8n could not report back"
        raise ValueError(msg)
    return value


_INVISIBLE = re.compile(r"[\u0000-\u001f\u007f-\u009f\u00ad\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
"""Control characters, line separators, changes of direction, and characters without a width that join nothing."""

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
    """One entry of the registry."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        field_title_generator=lambda name, _: name.replace("_", " "),
    )

    id: Identifier = Field(description="Names the KPI: in Airflow, in the job record, in what n8n gets and reports.")
    name: Text = Field(description="For people.")
    description: str = Field("", max_length=2000, description="For people; n8n gets it, too.")
    type: Text = Field(description="What kind of KPI it is, e.g. `price`; n8n gets it.")
    active: bool = Field(default=False, strict=True, description="Only active KPIs are sent; others are not checked.")
    webhook_url: Annotated[
        str,
        Field(max_length=2000, description="Of the n8n workflow: http or https, without credentials."),
        AfterValidator(_web_address),
        WithJsonSchema({"type": "string", "format": "uri", "pattern": "^https?://", "maxLength": 2000}),
    ]
    report_back: bool = Field(
        default=False,
        strict=True,
        description="Whether n8n reports the workflow's end, and the run waits for it.",
    )
    analysis_config: dict[str, JsonValue] | None = Field(None, description="For other readers of the registry.")
    metadata: dict[str, JsonValue] | None = Field(None, description="Anything else; kept with the job record.")


class RegistryDocument(BaseModel):
    """The whole registry, as its JSON schema describes it."""

    kpis: list[Kpi]
    metadata: dict[str, JsonValue] | None = Field(None, description="For people; not read.")


class Dropped(NamedTuple):
    """An entry that is not sent.

    Attributes:
        name: Its id, or its place in the list where it has none.
        reason: What is wrong with it, without what stands there.
    """

    name: str
    reason: str


class Registry(NamedTuple):
    """What a registry says.

    Attributes:
        kpis: The active ones, in their order.
        dropped: Active entries that are invalid.
    """

    kpis: list[Kpi]
    dropped: list[Dropped]


def parse(text: str | None) -> Registry:
    """Read a registry.

    Args:
        text: The Variable's value; None if there is none.

    Returns:
        The active KPIs, and those that were dropped: a field is missing or wrong, the id stands there already, or
        PostgreSQL could not store it.

    Raises:
        RegistryError: It is missing, too large, not JSON, or not of the registry's shape.
    """
    registry = Registry([], [])
    seen: set[str] = set()
    for place, entry in enumerate(_entries(text)):
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
                reason = "id: stands in the registry already; the first entry counts"
        registry.dropped.append(Dropped(_name(entry, place), reason))
    return registry


def json_schema() -> dict[str, Any]:
    """The JSON schema of a registry, generated from the model."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **RegistryDocument.model_json_schema(),
        "title": f"Airflow Variable {VARIABLE}",
    }


def _entries(text: str | None) -> list[Any]:
    if text is None or not text.strip():
        msg = f"There is no KPI registry: create the Airflow Variable {VARIABLE}. Nothing was sent."
        raise RegistryError(msg)
    content = text.encode(errors="surrogatepass")
    if len(content) > MAX_BYTES:
        msg = f"The KPI registry has {len(content):,} bytes, and at most {MAX_BYTES:,} are read. Nothing was sent."
        raise RegistryError(msg)
    try:
        document = parse_leniently(text)
    except ValueError as error:
        msg = f"The KPI registry is not JSON: {error}. Nothing was sent; correct the Airflow Variable {VARIABLE}."
        raise RegistryError(msg) from None
    entries = document.get("kpis") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        msg = f'The KPI registry is not {{"kpis": [...]}}. Nothing was sent; correct the Airflow Variable {VARIABLE}.'
        raise RegistryError(msg)
    return entries


def _unstorable(value: Any) -> str | None:
    """Why PostgreSQL's jsonb could not hold a value; None if it could."""
    if isinstance(value, str):
        if value == TOO_DEEP:
            return f"is nested too deeply: {MAX_DEPTH} levels are read"
        if SURROGATE.search(value):
            return "holds half of a surrogate pair, which is not a character"
        return "holds a NUL character, which PostgreSQL cannot store" if "\0" in value else None
    if isinstance(value, float):
        return None if math.isfinite(value) else "holds a number that is too large"
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return next(filter(None, map(_unstorable, parts)), None)


def _problem(error: Any) -> str:
    # Of what is wrong deep inside, the field is enough.
    place = str(error["loc"][0]) if error["loc"] else ""
    return ": ".join(filter(None, [place, error["msg"].removeprefix("Value error, ")]))


def _name(entry: Any, place: int) -> str:
    id_ = entry.get("id") if isinstance(entry, dict) else None
    # Escaped: a strange id shall not break the line of a log.
    return repr(id_)[1:-1][:60] if isinstance(id_, str) and id_ else f"kpis[{place}]"


def _counted(kpis: Sequence[Kpi]) -> str:
    return "1 KPI is sent" if len(kpis) == 1 else f"{len(kpis)} KPIs are sent"


def load() -> str | None:
    """The registry's text, as Airflow has it outside of tasks; None if there is none."""
    # Seconds; a task asks airflow.sdk instead.
    from airflow.models.variable import Variable

    text: str | None = Variable.get(VARIABLE, default_var=None)
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what would be sent of a registry, and what would not and why.

    Returns:
        The exit code: 0, or 1 if the registry cannot be read or an entry was dropped.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    parser = argparse.ArgumentParser(prog="python -m aggregator.kpi.registry", description="Check a KPI registry.")
    parser.add_argument("file", nargs="?", help=f"- is standard input; without it, Airflow's Variable {VARIABLE}")
    name = parser.parse_args(arguments).file
    try:
        registry = parse(load() if name is None else sys.stdin.read() if name == "-" else Path(name).read_text())
    except (AggregatorError, OSError, UnicodeDecodeError) as error:
        print(error, file=sys.stderr)
        return 1
    table = Table("id", "name", "type", "host", "reports back", title=_counted(registry.kpis))
    for kpi in registry.kpis:
        # A URL's path may be all that keeps strangers from starting a workflow.
        host = urlsplit(kpi.webhook_url).netloc
        table.add_row(*map(escape, [kpi.id, kpi.name, kpi.type, host]), "yes" if kpi.report_back else "no")
    # Where nobody watches, rich would break lines at 80 characters.
    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(table)
    for dropped in registry.dropped:
        console.print(f"[red]dropped[/] {escape(dropped.name)}: {escape(dropped.reason)}", highlight=False)
    return 1 if registry.dropped else 0


if __name__ == "__main__":
    sys.exit(main())
