"""Conversion of Python values to exactly the type that psycopg's binary COPY expects for a column.

Binary COPY takes half the time of text, but nothing casts its values: psycopg cuts an integer to the width of its
column, for example. So each value is converted here, where nothing is lost, or refused. Columns of other types are
sent as text, for the server to cast. Its own casts would lose something, too: the time in a ``date``, the offset in a
``timestamp``.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    from collections.abc import Callable

_NUMERIC_DIGITS = 131_072, 16_383
"""Digits of a ``numeric`` before and after the decimal point. psycopg does not check them."""

_FLOAT_LIMITS = {0.0, math.inf, -math.inf}
"""What Python makes of numbers that are too small or too large for a ``float8``."""


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
    if type(timestamp) is not datetime:
        # psycopg sends the difference from 2000, which pendulum rounds for distant years.
        timestamp = datetime.fromisoformat(timestamp.isoformat())
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
    if type(value) is str:
        return value
    # PostgreSQL's text of other values (t, \x6162) is not a text of the source.
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal | UUID):
        raise TypeError
    return str(value)


def _integer(value: Any, *, bits: int) -> int:
    number = value if type(value) is int else int(_number(value))
    if number != value and not isinstance(value, str):
        raise ValueError
    if not -(1 << bits - 1) <= number < 1 << bits - 1:
        raise OverflowError
    return number


def _float(value: Any) -> float:
    if type(value) is float:
        return value
    number = float(_number(value))
    if number in _FLOAT_LIMITS and Decimal(value) != number:
        raise OverflowError
    return number


def _numeric(value: Any) -> Decimal:
    # repr: the shortest text of a float, as PostgreSQL prints it.
    number = value if type(value) is Decimal else Decimal(repr(value) if isinstance(value, float) else _number(value))
    digits, scale = _NUMERIC_DIGITS
    if number.is_finite() and (number.adjusted() >= digits or int(number.as_tuple().exponent) < -scale):
        raise OverflowError
    return number


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise TypeError
    return value


def _uuid(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(str(value))


def _bytes(value: Any) -> bytes:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError
    return bytes(value)


CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "date": _date,
    "timestamp": _timestamp,
    "timestamptz": _timestamptz,
    "bytea": _bytes,
    "uuid": _uuid,
    "float8": _float,
    "numeric": _numeric,
    **dict.fromkeys(["json", "jsonb"], _json),
    **dict.fromkeys(["text", "varchar", "bpchar"], _text),
    **{name: partial(_integer, bits=bits) for name, bits in {"int2": 16, "int4": 32, "int8": 64}.items()},
}
"""Name of a column's type in ``pg_type`` → converter of its values; values of other types are sent as text.

It takes a value other than None. For one that does not fit, it raises TypeError, ValueError or ArithmeticError.
"""
