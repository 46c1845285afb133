"""The rows of a result of the SQL API, ``FORMAT JSON``, read one by one in constant memory.

A result is ``{"meta": [{"name", "type"}, …], "data": [{…}, …], "rows": n}``. ``meta`` names the ClickHouse type of each
column; `types` says how its values are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NoReturn

import ijson  # type: ignore[import-untyped]
from psycopg import sql

from aggregator.analytics_engine.types import ColumnType, Value, column_type
from aggregator.core.errors import PermanentError, TransientError

if TYPE_CHECKING:
    import psycopg
    from psycopg.rows import TupleRow

_LONGEST_TYPE = 200
_NUL = "\x00"
_SCALAR_EVENTS = frozenset({"null", "boolean", "number", "string"})


@dataclass(frozen=True)
class Column:
    """A column of a result.

    Attributes:
        name: Its alias in the query.
        type_name: Its ClickHouse type, as ``meta`` names it.
        type: The description of that type.
    """

    name: str
    type_name: str
    type: ColumnType

    @classmethod
    def of(cls, name: str, type_name: str) -> Column:
        """The column with this name and ClickHouse type. Raise PermanentError if the type is not in `types`."""
        shown = type_name[:_LONGEST_TYPE]
        try:
            return cls(name, type_name, column_type(shown))
        except LookupError:
            raise PermanentError(
                f"Analytics Engine returned column {name!r} as {shown!r}, a type that cannot be read. Nothing was "
                "written. Select another expression."
            ) from None

    def read(self, value: Any) -> Value:
        """Convert a JSON scalar, in which fractions are ``Decimal``. Raise PermanentError if it has another type."""
        try:
            return self.type.read(value)
        except ValueError:
            found = "null" if value is None else f"a {type(value).__name__} of another type"
            raise PermanentError(
                f"Analytics Engine returned column {self.name!r} as {self.type_name}, but a row holds {found}. "
                "Nothing was written. Clear the task; if it fails again, change the expression in the query."
            ) from None


class AnalyticsEngineResult(Iterator[tuple[Value, ...]]):
    """The rows of a result, each a tuple in the order of its columns.

    Attributes:
        columns: The columns. Empty if the dataset has no rows in the query's range, or none at all.
    """

    columns: tuple[Column, ...] = ()

    def __init__(self, body: Iterable[bytes]) -> None:
        """Read up to the first row, so that an error before it is raised here.

        Args:
            body: The body of the response, in pieces. The rest is read as the rows are taken.

        Raises:
            TransientError: The body is incomplete: not valid JSON.
            PermanentError: It is valid JSON, but not the result of a query, or a value does not have its column's type.
        """
        self._events = ijson.basic_parse(ijson.from_iter(filter(None, body)))
        rows = self._rows()
        self._remaining = chain(list(islice(rows, 1)), rows)

    @classmethod
    def empty(cls) -> AnalyticsEngineResult:
        """A result without rows and columns."""
        return cls([b'{"meta": [], "data": [], "rows": 0}'])

    def __next__(self) -> tuple[Value, ...]:
        """The next row.

        Raises:
            TransientError: The body is incomplete: not valid JSON, or its ``rows`` is not the number of rows in it.
            PermanentError: As for the first row.
        """
        return next(self._remaining)

    def copy_to(self, cursor: psycopg.Cursor[TupleRow]) -> int:
        """Load the rows into the temporary table ``pg_temp.analytics_engine_answer``, in constant memory.

        Args:
            cursor: In the transaction that has the table until its end. A result without columns makes no table.

        Returns:
            The number of rows.

        Raises:
            AggregatorError: As for the next row.
            psycopg.Error: PostgreSQL refused the table or the rows.
        """
        if not self.columns:
            return 0
        types = [column.type.postgres for column in self.columns]
        columns = [
            sql.SQL("{} {}").format(sql.Identifier(column.name), sql.SQL(type_))
            for column, type_ in zip(self.columns, types, strict=True)
        ]
        definition = sql.SQL("create temporary table analytics_engine_answer ({}) on commit drop")
        cursor.execute(definition.format(sql.SQL(", ").join(columns)))
        rows = 0
        # psycopg does not check binary values. `ColumnType.read` has: each has exactly its column's type.
        with cursor.copy("copy pg_temp.analytics_engine_answer from stdin (format binary)") as copy:
            copy.set_types(types)
            for row in self:
                copy.write_row(_storable(row))
                rows += 1
        cursor.execute("analyze pg_temp.analytics_engine_answer")
        return rows

    def _rows(self) -> Iterator[tuple[Value, ...]]:
        seen = 0
        stated = None
        try:
            self._expect("start_map")
            while (event := self._event())[0] == "map_key":
                key = event[1]
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
            next(self._events, None)  # raises if anything follows the object
        except (ArithmeticError, SystemError, ValueError):
            # The parser's backends raise these for a number with thousands of digits, or for 1e99999999999999999999.
            raise PermanentError(
                f"Analytics Engine returned a number that is too large to read, after {seen} rows. Nothing was "
                "written. Correct the query."
            ) from None
        except ijson.JSONError:
            # Without the parser's own text, which quotes the body.
            msg = f"Analytics Engine's response is incomplete: no valid JSON after {seen} rows. Nothing was written."
            raise TransientError(msg) from None
        if stated is None:
            _refuse()
        if stated != seen:
            raise TransientError(
                f"Analytics Engine's response is incomplete: it has {seen} rows and announces {stated}. "
                "Nothing was written."
            )

    def _data(self) -> Iterator[tuple[Value, ...]]:
        self._expect("start_array")
        readers = [(column.name, column.read) for column in self.columns]
        names = {name for name, _ in readers}
        while (event := self._event()[0]) != "end_array":
            row = self._row() if event == "start_map" else {}
            if not names or row.keys() != names:
                _refuse()
            yield tuple([read(row[name]) for name, read in readers])

    def _row(self) -> dict[str, Any]:
        row: dict[str, Any] = {}
        key = ""
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

    def _value(self) -> Any:
        builder = ijson.ObjectBuilder()
        depth = 0
        for event, value in self._events:
            builder.event(event, value)
            depth += event.startswith("start_") - event.startswith("end_")
            if not depth:
                break
        return builder.value

    def _expect(self, event: str) -> None:
        if self._event()[0] != event:
            _refuse()

    def _event(self) -> tuple[str, Any]:
        event: tuple[str, Any] | None = next(self._events, None)
        if event is None:
            raise ijson.IncompleteJSONError("no event is left")
        return event


def _refuse() -> NoReturn:
    raise PermanentError(
        "Analytics Engine returned 200 with JSON that is not the result of a query (meta, data, rows). Nothing was "
        "written. Check the host of the connection."
    )


def _columns(meta: Any) -> tuple[Column, ...]:
    columns: dict[str, Column] = {}
    for column in meta if isinstance(meta, list) else [meta]:
        match column:
            case {"name": str(name), "type": str(type_)} if name not in columns:
                columns[name] = Column.of(name, type_)
            case _:
                _refuse()
    return tuple(columns.values())


def _storable(row: tuple[Value, ...]) -> list[Value]:
    # PostgreSQL stores no text with NUL, so the value matches no stored text, with or without the replacement.
    return [value.replace(_NUL, "\N{REPLACEMENT CHARACTER}") if isinstance(value, str) else value for value in row]
