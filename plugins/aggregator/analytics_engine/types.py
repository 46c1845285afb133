"""Column types: how a value of each ClickHouse type is read from JSON, and stored in PostgreSQL.

| ClickHouse type | Read as | Column of the temporary table |
|---|---|---|
| ``UInt8`` to ``UInt32``, ``Int8`` to ``Int64`` | ``int``, from a number or a string | ``int8`` |
| ``UInt64``, and integers of 128 and 256 bits | ``int``, from a number or a string | ``numeric`` |
| ``Float32``, ``Float64`` | finite ``float``, from a number or a string | ``float8`` |
| ``Decimal(P, S)`` and its sized forms | ``Decimal``, from a number or a string | ``numeric`` |
| ``String`` | ``str`` | ``text`` |
| ``DateTime``, in UTC | aware ``datetime``, from ``YYYY-MM-DD hh:mm:ss`` | ``timestamptz`` |
| ``Date`` | ``date``, from ``YYYY-MM-DD`` | ``date`` |
| ``Bool`` | ``bool`` | ``bool`` |
| ``Nullable(T)`` | ``None``, or as ``T`` | as ``T`` |
| ``LowCardinality(T)`` | as ``T`` | as ``T`` |

The API sends 64-bit integers and sums as numbers or as strings.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T", str, bool)

Value = int | float | Decimal | str | bool | date | datetime | None
"""A value of a row. A ``datetime`` is aware and in UTC."""

_INTEGER = re.compile(r"-?[0-9]{1,78}")
_NUMBER = re.compile(r"-?[0-9]{1,400}(?:\.[0-9]{1,400})?(?:[eE][+-]?[0-9]{1,4})?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DATETIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}")

_INTEGER_TYPE = re.compile(r"(U?)Int(8|16|32|64|128|256)")
_DECIMAL_TYPE = re.compile(r"Decimal(?:32|64|128|256)?\([0-9]+(?:, ?[0-9]+)?\)")
_WRAPPED_TYPE = re.compile(r"(LowCardinality|Nullable)\((.+)\)")


class Kind(StrEnum):
    """What the dialect distinguishes about an expression. The value is its name in error texts."""

    STRING = "a String"
    NUMBER = "a number"
    TIME = "a time"
    ZONED_TIME = "a time with a time zone"
    ARRAY = "an array"


UNREADABLE = (Kind.ARRAY, Kind.ZONED_TIME)
"""Kinds without a column type below. A local time can be ambiguous."""


@dataclass(frozen=True)
class ColumnType:
    """A ClickHouse type.

    Attributes:
        read: Converts a JSON value (fractions as ``Decimal``) and raises ValueError if it has another type.
        postgres: PostgreSQL type that holds every value. psycopg writes what ``read`` returns as this type.
        kind: What the dialect calls it; None if no column of a dataset has this type.
    """

    read: Callable[[Any], Value]
    postgres: str
    kind: Kind | None = None


def column_type(name: str) -> ColumnType:
    """The description of a ClickHouse type with a name as in ``meta``, such as ``Nullable(UInt64)``.

    Raises:
        LookupError: The type is not in the table above.
    """
    if wrapped := _WRAPPED_TYPE.fullmatch(name):
        inner = column_type(wrapped[2])
        return replace(inner, read=_nullable(inner.read)) if wrapped[1] == "Nullable" else inner
    if integer := _INTEGER_TYPE.fullmatch(name):
        return _integer_type(int(integer[2]), signed=not integer[1])
    if _DECIMAL_TYPE.fullmatch(name):
        return ColumnType(_read_decimal, "numeric")
    return _TYPES[name]


def _nullable(read: Callable[[Any], Value]) -> Callable[[Any], Value]:
    return lambda value: None if value is None else read(value)


def _integer_type(bits: int, *, signed: bool) -> ColumnType:
    lowest, highest = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)

    def read(value: Any) -> int:
        number = value if type(value) in {int, Decimal} else int(_text(_INTEGER, value))
        # Limits first: the integer of 1e999999999 does not fit into memory.
        if lowest <= number <= highest and number == int(number):
            return int(number)
        raise ValueError

    return ColumnType(read, "int8" if highest < 2**63 else "numeric", Kind.NUMBER)


def _text(pattern: re.Pattern[str], value: Any) -> str:
    if isinstance(value, str) and pattern.fullmatch(value):
        return value
    raise ValueError


def _exactly(type_: type[T]) -> Callable[[Any], T]:
    def read(value: Any) -> T:
        if isinstance(value, type_):
            return value
        raise ValueError

    return read


def _read_decimal(value: Any) -> Decimal:
    return Decimal(value if type(value) in {int, Decimal} else _text(_NUMBER, value))


def _read_float(value: Any) -> float:
    number = float(_read_decimal(value))
    if math.isfinite(number):
        return number
    raise ValueError


def _read_date(value: Any) -> date:
    return date.fromisoformat(_text(_DATE, value))


def _read_datetime(value: Any) -> datetime:
    return datetime.fromisoformat(_text(_DATETIME, value)).replace(tzinfo=UTC)


_FLOAT = ColumnType(_read_float, "float8", Kind.NUMBER)
_UTC_TIME = ColumnType(_read_datetime, "timestamptz", Kind.TIME)
_TYPES = {
    "Bool": ColumnType(_exactly(bool), "bool"),
    "Date": ColumnType(_read_date, "date"),
    "DateTime": _UTC_TIME,
    "DateTime('UTC')": _UTC_TIME,
    "DateTime('Etc/UTC')": _UTC_TIME,
    "Float32": _FLOAT,
    "Float64": _FLOAT,
    "String": ColumnType(_exactly(str), "text", Kind.STRING),
}

DATASET_COLUMNS = {
    "dataset": "String",
    "timestamp": "DateTime",
    "index1": "String",
    "_sample_interval": "UInt32",
    **{f"blob{number}": "String" for number in range(1, 21)},
    **{f"double{number}": "Float64" for number in range(1, 21)},
}
"""Columns of every dataset and their ClickHouse types (Cloudflare: SQL API, table structure)."""
