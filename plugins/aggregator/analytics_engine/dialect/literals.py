r"""Values as literals. The SQL API has no bind parameters.

| Value | Literal | Limits |
|---|---|---|
| ``"it's"`` | ``'it''s'`` | no NUL, valid Unicode |
| ``"\"`` | ``'\\'`` | ends at the same quote whether ``\`` is an escape (ClickHouse) or not (standard SQL) |
| ``datetime(2026, 11, 15, tzinfo=UTC)`` | ``toDateTime('2026-11-15 00:00:00')`` | aware, whole seconds, 1970 to 2106 |
| ``date(2026, 11, 15)`` | ``toDateTime('2026-11-15 00:00:00')`` | 1970 to 2106 |
| ``7``, ``-7`` | ``7``, ``(-7)`` | 64 bits; ``x -%(y)s`` must not become a comment |
| ``1e-7``, ``Decimal("1.50")`` | ``0.0000001``, ``1.5`` | 0, or a size from 1e-15 to 1e15 |
| ``True`` | ``true`` | |

The dialect has no exponents, and the API computes in doubles: a ``Decimal`` becomes the nearest double. Sizes are
limited because ClickHouse reads a long row of digits as another number (300 zeros as 30).
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING

from aggregator.analytics_engine.errors import refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

Parameter = datetime | date | str | int | float | Decimal | bool
"""A value that `bind` can write as a literal."""

OPTIONAL = frozenset({"data_interval_start", "data_interval_end"})
"""The bounds of a run's window. Operators always pass them."""

_TEMPLATE = re.compile(
    r"(?P<string>'(?:[^'\\]|''|\\.)*+')|(?P<comment>--[^\n]*+)|%\((?P<name>\w+)\)s|(?P<percent>%%)|(?P<wrong>['%])",
    re.DOTALL,
)
_DATETIMES = (datetime(1970, 1, 1, tzinfo=UTC), datetime(2106, 2, 7, 6, 28, 15, tzinfo=UTC))  # of a 32-bit DateTime
_SIZES = (1e-15, 1e15)


def bind(sql: str, parameters: Mapping[str, Parameter]) -> str:
    """Replace the placeholders in ``sql`` by literals.

    Placeholders are psycopg's: ``%(name)s``, and ``%%`` for a percent sign. They are allowed where a literal is
    allowed, but not inside quotes. Comments stay as they are.

    Args:
        sql: Text with placeholders, trusted.
        parameters: Values by name, not trusted. Only those in `OPTIONAL` may be unused.

    Returns:
        The complete text.

    Raises:
        DialectError: A placeholder has no value, a value has no placeholder, a value has no literal, or a percent sign
            or quote is unmatched. The text quotes no value.
    """
    used = set()

    def replace(match: re.Match[str]) -> str:
        if match["comment"]:
            return match[0]
        if match["percent"]:
            return "%"
        if match["wrong"]:
            raise refusal("template", "a quote is not closed" if match[0] == "'" else "write %% for a percent sign")
        if match["string"]:
            if "%" in match[0].replace("%%", ""):
                raise refusal("template", "inside quotes write %% for a percent sign, and no placeholder")
            return match[0].replace("%%", "%")
        name = match["name"]
        if name not in parameters:
            raise refusal(f"parameter {name}", "the placeholder has no value")
        used.add(name)
        return _literal(f"parameter {name}", parameters[name])

    bound = _TEMPLATE.sub(replace, sql)
    if unused := parameters.keys() - used - OPTIONAL:
        raise refusal(f"parameter {', '.join(sorted(unused))}", "the query has no placeholder for it")
    return bound


def _literal(part: str, value: Parameter) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            check_characters(part, value)
            return "'{}'".format(value.replace("\\", "\\\\").replace("'", "''"))
        case datetime():
            return _datetime_literal(part, value)
        case date():
            return _datetime_literal(part, datetime.combine(value, time(), UTC))
        case int():
            if not -(2**63) <= value < 2**63:
                raise refusal(part, "it does not fit 64 bits")
            return _signed(str(int(value)))
        case float() | Decimal():
            return _decimal_literal(part, value)
        case _:
            raise refusal(part, f"{type(value).__name__} has no literal")


def check_characters(part: str, text: str) -> None:
    """Raise DialectError for text that is not valid Unicode or holds a NUL character."""
    if "\0" in text:
        raise refusal(part, "it holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise refusal(part, "it is not valid Unicode") from None


def _decimal_literal(part: str, value: float | Decimal) -> str:
    smallest, largest = _SIZES
    if value != 0 and not smallest <= abs(float(value)) <= largest:  # false for NaN, too
        raise refusal(part, f"its size is not between {smallest} and {largest}")
    return _signed(format(Decimal(repr(float(value))), "f"))


def _signed(number: str) -> str:
    return f"({number})" if number.startswith("-") else number


def _datetime_literal(part: str, value: datetime) -> str:
    if value.utcoffset() is None:
        raise refusal(part, "a time needs a time zone")
    if value.microsecond:
        raise refusal(part, "a time must have whole seconds")
    earliest, latest = _DATETIMES
    if not earliest <= value <= latest:
        raise refusal(part, "a time must be between 1970 and 2106")
    return f"toDateTime('{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}')"
