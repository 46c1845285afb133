"""Conversion of Python values for COPY, where the server's own cast would lose something.

COPY sends values as text, and the server casts them to the type of their column. Its casts refuse most values that do
not fit. These converters are for the others: a cast to ``date`` drops the time, a cast to ``timestamp`` drops the
offset, and words such as ``now`` are dates.
"""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    from collections.abc import Callable


def json_text(value: Any) -> str:
    """Return JSON without escapes, which a database refuses if its encoding is not UTF-8; a surrogate needs one."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def _timestamptz(value: Any) -> datetime:
    timestamp = datetime.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(timestamp, datetime):
        raise TypeError
    # A naive timestamp is UTC (spec: analytics suite).
    return timestamp if timestamp.tzinfo else timestamp.replace(tzinfo=UTC)


def _timestamp(value: Any) -> datetime:
    return _timestamptz(value).astimezone(UTC).replace(tzinfo=None)


def _date(value: Any) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    timestamp = _timestamp(value)
    if timestamp.time() != time.min:
        raise ValueError
    return timestamp.date()


def _json(value: Any) -> Jsonb:
    # A str is JSON text, as it is for PostgreSQL itself.
    return Jsonb(value if isinstance(value, str) else json_text(value), dumps=str)


def _text(value: Any) -> str:
    # PostgreSQL's text of other values (t, \x6162) is not a text of the source.
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal | UUID):
        raise TypeError
    return str(value)


def _integer(value: Any) -> Any:
    return int(value) if isinstance(value, float | Decimal) and value % 1 == 0 else value


def _bytes(value: Any) -> bytes:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError
    return bytes(value)


CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "date": _date,
    "timestamp": _timestamp,
    "timestamptz": _timestamptz,
    "bytea": _bytes,
    **dict.fromkeys(["json", "jsonb"], _json),
    **dict.fromkeys(["text", "varchar", "bpchar"], _text),
    **dict.fromkeys(["int2", "int4", "int8"], _integer),
}
"""Name of a column's type in ``pg_type`` → converter of its values, where the server's cast is not enough.

It takes a value other than None, and raises ``TypeError`` or ``ValueError`` for a value that does not fit.
"""
