"""Reads an answer of Workers Analytics Engine's SQL API, ``FORMAT JSON``, row by row in constant memory.

The answer is ``{"meta": [{"name", "type"}, …], "data": [{…}, …], "rows": n}``. Its ``meta`` names ClickHouse types, by
which the values are converted: 64-bit integers and sums may come as numbers or as strings (spec: shared parts).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import chain, islice
from typing import Any, NoReturn

import ijson  # type: ignore[import-untyped]

from aggregator.core.errors import PermanentError, TransientError

Value = int | float | Decimal | str | bool | date | datetime | None
"""What a row holds; a ``datetime`` is aware and in UTC."""

_INTEGER = re.compile(r"-?[0-9]{1,78}")
_NUMBER = re.compile(r"-?[0-9]{1,400}(?:\.[0-9]{1,400})?(?:[eE][+-]?[0-9]{1,4})?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DATETIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}")

_INTEGER_TYPE = re.compile(r"(U?)Int(8|16|32|64|128|256)")
_DECIMAL_TYPE = re.compile(r"Decimal(?:32|64|128|256)?\([0-9]+(?:, ?[0-9]+)?\)")
_LONGEST_TYPE = 200
_WRAPPED_TYPE = re.compile(r"(LowCardinality|Nullable)\((.+)\)")

_SCALAR_EVENTS = frozenset({"null", "boolean", "number", "string"})


class _MismatchError(ValueError):
    """A value is not of its column's type."""


@dataclass(frozen=True)
class Column:
    """A column of an answer.

    Attributes:
        name: Its alias in the query.
        type: Its ClickHouse type, as ``meta`` has it.
    """

    name: str
    type: str
    _convert: Callable[[Any], Value]

    @classmethod
    def of(cls, name: str, clickhouse_type: str) -> Column:
        """The column with this name and ClickHouse type.

        Raises:
            PermanentError: The type is none of (U)Int*, Float*, Decimal, String, DateTime (UTC), Date and Bool, nor one
                of these in Nullable or LowCardinality.
        """
        try:
            return cls(name, clickhouse_type, _converter(clickhouse_type[:_LONGEST_TYPE]))
        except LookupError:
            shown = clickhouse_type[:_LONGEST_TYPE]
            msg = f"Column {name!r} has type {shown!r}, which cannot be read. Select another expression."
            raise PermanentError(msg) from None

    def convert(self, value: Any) -> Value:
        """The Python value for a JSON value of this column.

        Args:
            value: A JSON scalar; fractions as ``Decimal``, so that no digit is lost on the way.

        Raises:
            PermanentError: The value is not of the column's type. The text does not repeat it.
        """
        try:
            return self._convert(value)
        except _MismatchError:
            found = "null" if value is None else f"a {type(value).__name__} that is none"
            msg = f"Column {self.name!r} is {self.type}, but a row holds {found}. Nothing of the answer can be trusted."
            raise PermanentError(msg) from None


class AnalyticsEngineResult(Iterator[tuple[Value, ...]]):
    """The rows of an answer, each a tuple in the order of its columns.

    Attributes:
        columns: What the rows hold; empty if the query was about a range, or a dataset, that has no rows at all.
    """

    columns: tuple[Column, ...] = ()

    def __init__(self, body: Iterable[bytes]) -> None:
        """Read up to the first row, so that whatever goes wrong before it goes wrong here.

        Args:
            body: The answer, in pieces; read as the rows are taken.

        Raises:
            TransientError: The answer is cut: not valid JSON.
            PermanentError: It is valid JSON, but not the result of a query, or holds a value that is not of its
                column's type.
        """
        self._events = ijson.basic_parse(ijson.from_iter(filter(None, body)))
        rows = self._rows()
        self._remaining = chain(list(islice(rows, 1)), rows)

    @classmethod
    def empty(cls) -> AnalyticsEngineResult:
        """No rows, and no columns."""
        return cls([b'{"meta": [], "data": [], "rows": 0}'])

    def __next__(self) -> tuple[Value, ...]:
        """The next row.

        Raises:
            TransientError: The answer is cut: not valid JSON, or fewer or more rows than it states at its end.
            PermanentError: As for the first row.
        """
        return next(self._remaining)

    def _rows(self) -> Iterator[tuple[Value, ...]]:
        seen = 0
        stated = None
        try:
            self._expect("start_map")
            while (key := self._key()) is not None:
                if key == "data":
                    for row in self._data():
                        seen += 1
                        yield row
                elif key == "meta":
                    self.columns = _columns(self._value())
                elif key == "rows":
                    stated = self._value()
                else:
                    self._value()
            next(self._events, None)  # whatever follows the object makes the parser protest
        except (ArithmeticError, SystemError, ValueError):
            # What the parser's backends raise for a number with thousands of digits, or for 1e99999999999999999999.
            msg = f"Analytics Engine's answer holds a number that is too large to be read, after {seen} rows."
            raise PermanentError(msg) from None
        except ijson.JSONError:
            # Not the parser's own text, which quotes the answer.
            msg = f"Analytics Engine's answer is cut: no valid JSON after {seen} rows."
            raise TransientError(msg) from None
        if stated is None:
            _refuse()
        if stated != seen:
            msg = f"Analytics Engine's answer is cut: it holds {seen} rows and states {stated}."
            raise TransientError(msg)

    def _data(self) -> Iterator[tuple[Value, ...]]:
        self._expect("start_array")
        converters = [(column.name, column.convert) for column in self.columns]
        names = {name for name, _ in converters}
        while (row := self._row()) is not None:
            if not names or row.keys() != names:
                _refuse()
            yield tuple([convert(row[name]) for name, convert in converters])

    def _row(self) -> dict[str, Any] | None:
        """The next object of an array; None at its end."""
        event, key = self._event()
        if event == "end_array":
            return None
        if event != "start_map":
            _refuse()
        row: dict[str, Any] = {}
        for event, value in self._events:
            if event == "map_key":
                key = value
            elif event == "end_map":
                break
            elif event in _SCALAR_EVENTS:
                row[key] = value
            else:
                _refuse()
        return row

    def _key(self) -> str | None:
        """The next key of an object; None at its end."""
        event, key = self._event()
        return key if event == "map_key" else None

    def _value(self) -> Any:
        builder = ijson.ObjectBuilder()
        depth = 0
        for event, value in self._events:
            builder.event(event, value)
            depth += event.startswith("start_")
            depth -= event.startswith("end_")
            if not depth:
                break
        return builder.value

    def _expect(self, event: str) -> None:
        if self._event()[0] != event:
            _refuse()

    def _event(self) -> tuple[str, Any]:
        event: tuple[str, Any] | None = next(self._events, None)
        if event is None:
            msg = "no event is left"
            raise ijson.IncompleteJSONError(msg)
        return event


def _refuse() -> NoReturn:
    msg = (
        "Analytics Engine answered 200 with JSON that is no result of a query (meta, data, rows). "
        "Check the host of the connection."
    )
    raise PermanentError(msg)


def _columns(meta: Any) -> tuple[Column, ...]:
    match meta:
        case [*columns]:
            named = {column["name"]: column["type"] for column in columns if _is_column(column)}
            if len(named) == len(columns):
                return tuple(Column.of(name, type_) for name, type_ in named.items())
    _refuse()


def _is_column(column: Any) -> bool:
    match column:
        case {"name": str(), "type": str()}:
            return True
    return False


def _converter(clickhouse_type: str) -> Callable[[Any], Value]:
    if wrapped := _WRAPPED_TYPE.fullmatch(clickhouse_type):
        convert = _converter(wrapped[2])
        return convert if wrapped[1] == "LowCardinality" else lambda value: None if value is None else convert(value)
    if integer := _INTEGER_TYPE.fullmatch(clickhouse_type):
        bits = int(integer[2])
        return _integer(0, 2**bits - 1) if integer[1] else _integer(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    if _DECIMAL_TYPE.fullmatch(clickhouse_type):
        return _decimal
    return _CONVERTERS[clickhouse_type]


def _integer(lowest: int, highest: int) -> Callable[[Any], int]:
    def convert(value: Any) -> int:
        number = int(value) if isinstance(value, str) and _INTEGER.fullmatch(value) else value
        # The limits first: the integer of 1e999999999 does not fit into memory.
        if type(number) in {int, Decimal} and lowest <= number <= highest and number == int(number):
            return int(number)
        raise _MismatchError

    return convert


def _float(value: Any) -> float:
    number = float(_decimal(value))
    if math.isfinite(number):
        return number
    raise _MismatchError


def _decimal(value: Any) -> Decimal:
    if type(value) in {int, Decimal} or (isinstance(value, str) and _NUMBER.fullmatch(value)):
        return Decimal(value)
    raise _MismatchError


def _string(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise _MismatchError


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise _MismatchError


def _date(value: Any) -> date:
    try:
        return date.fromisoformat(_matching(_DATE, value))
    except ValueError:
        raise _MismatchError from None


def _datetime(value: Any) -> datetime:
    try:
        return datetime.fromisoformat(_matching(_DATETIME, value)).replace(tzinfo=UTC)
    except ValueError:
        raise _MismatchError from None


def _matching(pattern: re.Pattern[str], value: Any) -> str:
    if isinstance(value, str) and pattern.fullmatch(value):
        return value
    raise _MismatchError


_CONVERTERS: dict[str, Callable[[Any], Value]] = {
    "Bool": _bool,
    "Date": _date,
    "DateTime": _datetime,
    "DateTime('UTC')": _datetime,
    "DateTime('Etc/UTC')": _datetime,
    "Float32": _float,
    "Float64": _float,
    "String": _string,
}
