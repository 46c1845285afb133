"""How Python values become column values in ``COPY … FROM STDIN``.

The binary format is the fastest way into PostgreSQL, and the least forgiving one: psycopg's binary dumpers do not check
what they are given (a number too large for an ``integer`` column is cut to its low 32 bits without a word). So each
value passes the converter of its column's type first. Both formats use the same converters and accept the same values.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


NUL = "\x00"
"""The one character that PostgreSQL's text cannot hold."""

_NUMBERS = (int, str, float, Decimal)
_TEXTS = (str, int, Decimal, UUID)


def _any(_: Sequence[Any]) -> bool:
    return True


@dataclass(frozen=True)
class Format:
    """How the values of one column travel.

    Attributes:
        convert: Turns a value that is not None into one that psycopg writes as the column's type. It raises
            ``TypeError``, ``ValueError`` or ``ArithmeticError`` for a value that the type cannot hold.
        binary_type: The type whose binary form the column reads; None if it takes the text form only.
        exact: The class whose values may need no conversion.
        fit: Whether values of that class, one at least, all need none.
    """

    convert: Callable[[Any], Any]
    binary_type: str | None = None
    exact: type | None = None
    fit: Callable[[Sequence[Any]], bool] = _any

    def convert_all(self, values: Sequence[Any]) -> Sequence[Any]:
        """Convert some values of the column; None stays None.

        Looking at many values at once is several times faster than calling ``convert`` for each, and most need nothing.

        Args:
            values: What the caller has.

        Returns:
            What psycopg can write.

        Raises:
            TypeError: A value's class has no meaning for the column.
            ValueError: A value cannot be held by the column.
            ArithmeticError: The same, for a number.
        """
        if set(map(type, values)) == {self.exact} and self.fit(values):
            return values
        return [None if value is None else self.convert(value) for value in values]


def json_text(value: Any, *, allow_nan: bool = True) -> str:
    """JSON that databases of every encoding can read.

    A database that is not UTF-8 refuses the escapes of characters beyond ASCII.

    Args:
        value: What to write.
        allow_nan: False raises ``ValueError`` for numbers that JSON does not have.

    Returns:
        JSON without escapes, unless there is a surrogate, which nothing but an escape can express.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=allow_nan)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=allow_nan)
    return text


def _integer(bits: int) -> Format:
    limit: int = 2 ** (bits - 1)

    def convert(value: Any) -> int:
        if not isinstance(value, _NUMBERS) or isinstance(value, bool):
            raise TypeError
        number = int(value)
        if not -limit <= number < limit or (not isinstance(value, str) and number != value):
            raise ValueError
        return number

    def fit(values: Sequence[int]) -> bool:
        return min(values) >= -limit and max(values) < limit

    return Format(convert, f"int{bits // 8}", int, fit)


def _float(value: Any) -> float:
    if not isinstance(value, _NUMBERS) or isinstance(value, bool):
        raise TypeError
    return float(value)


def _numeric(value: Any) -> Decimal:
    if not isinstance(value, _NUMBERS) or isinstance(value, bool):
        raise TypeError
    # A float by the shortest digits that mean it, which is how PostgreSQL reads one.
    return Decimal(repr(value) if isinstance(value, float) else value)


def _boolean(value: Any) -> bool:
    if value in (True, "true", "True"):
        return True
    if value in (False, "false", "False"):
        return False
    raise ValueError


def _text(value: Any) -> str:
    if not isinstance(value, _TEXTS) or isinstance(value, bool):
        raise TypeError
    text = str(value)
    if NUL in text:
        raise ValueError
    return text


def _timestamptz(value: Any) -> datetime:
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(moment, datetime):
        raise TypeError
    # A naive timestamp is UTC (spec: analytics suite).
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _timestamp(value: Any) -> datetime:
    return _timestamptz(value).astimezone(UTC).replace(tzinfo=None)


def _date(value: Any) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    moment = _timestamp(value)
    if moment != datetime.combine(moment, time.min):
        raise ValueError
    return moment.date()


def _uuid(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(value)


def _json(value: Any) -> Jsonb:
    # A str is JSON text, as it is for PostgreSQL itself.
    text = value if isinstance(value, str) else json_text(value, allow_nan=False)
    return Jsonb(text, dumps=str)


def _bytes(value: Any) -> bytes:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError
    return bytes(value)


def _as_is(value: Any) -> Any:
    return value


def _without_nul(values: Sequence[str]) -> bool:
    return NUL not in "".join(values)


def _all_aware(values: Sequence[datetime]) -> bool:
    return None not in {value.tzinfo for value in values}


_TEXT = Format(_text, "text", str, _without_nul)
_FORMATS = {
    "bool": Format(_boolean, "bool", bool),
    "int2": _integer(16),
    "int4": _integer(32),
    "int8": _integer(64),
    "float4": Format(_float, exact=float),  # only the server's own conversion refuses what float4 cannot hold
    "float8": Format(_float, "float8", float),
    "numeric": Format(_numeric, "numeric", Decimal),
    "text": _TEXT,
    "varchar": _TEXT,
    "bpchar": _TEXT,
    "enum": _TEXT,
    "date": Format(_date, "date", date),
    "timestamp": Format(_timestamp, "timestamp"),
    "timestamptz": Format(_timestamptz, "timestamptz", datetime, _all_aware),
    "uuid": Format(_uuid, "uuid", UUID),
    "json": Format(_json),
    "jsonb": Format(_json, "jsonb"),
    "bytea": Format(_bytes, "bytea", bytes),
}

_OTHER = Format(_as_is)


def format_of(base_type: str) -> Format:
    """The format for a column.

    Args:
        base_type: ``pg_type.typname`` of a built-in type, ``enum`` for any enumeration. Other types (arrays, ranges,
            ``inet`` …) go as text, in the form that psycopg or the caller gives it.

    Returns:
        Its converter, and its binary type if it has one.
    """
    return _FORMATS.get(base_type, _OTHER)
