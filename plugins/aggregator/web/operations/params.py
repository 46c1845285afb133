"""Query parameters and shapes that the views share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

from fastapi import Depends, Query
from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, StringConstraints

from aggregator.core.http import Camel
from aggregator.core.params import Day

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from aggregator.web.operations.database import Reader

M = TypeVar("M", bound=BaseModel)

DEFAULT_DAYS = 30
MAX_DAYS = 400
MAX_CELL_DAYS = 92
"""Longest range of a table with a cell for each day."""

SERIES = 12
"""Series of a chart."""


def _finite(value: Any) -> float | None:
    number = None if value is None else float(value)
    return number if number is None or math.isfinite(number) else None


Number = Annotated[float | None, BeforeValidator(_finite)]
"""A number for JSON, which has neither NaN nor infinity."""


def _whole_text(value: str) -> str:
    if "\0" in value:
        msg = "contains a NUL character"
        raise ValueError(msg)
    return value


Time = AwareDatetime | None
"""A timestamp with its zone; None if not given."""

Text = Annotated[str, StringConstraints(max_length=200), AfterValidator(_whole_text)]
RunId = Annotated[str, StringConstraints(max_length=250), AfterValidator(_whole_text)]
Search = Annotated[Text, Query(description="Only names that contain this text; upper and lower case are equal.")]


def invalid(name: str, message: str) -> RequestValidationError:
    """An error about a query parameter, which becomes a response with status 400."""
    return RequestValidationError([{"loc": ("query", name), "msg": message}])


@dataclass(frozen=True)
class Days:
    """A range of UTC days.

    Attributes:
        first: First day.
        until: Day after the last one.
    """

    first: date
    until: date

    @property
    def all(self) -> list[date]:
        """All days in order."""
        return [self.first + timedelta(days=number) for number in range((self.until - self.first).days)]

    @property
    def parameters(self) -> dict[str, date]:
        """Values for the placeholders of a statement."""
        return {"first_day": self.first, "until_day": self.until}

    def column(self, rows: Iterable[Mapping[str, Any]], name: str, day: str = "day") -> list[Any]:
        """Return a value for each day, None for a day without a row."""
        values = {row[day]: row[name] for row in rows}
        return [values.get(each) for each in self.all]


_First = Annotated[Day, Query(alias="from", description="First UTC day; default: 29 days before today.")]
_Until = Annotated[Day, Query(alias="to", description="UTC day after the last one; default: tomorrow.")]


def _days(at_most: int) -> Callable[..., Days]:
    def days(first: _First = None, until: _Until = None) -> Days:
        length = timedelta(days=DEFAULT_DAYS)
        try:
            end = until or (first + length if first else datetime.now(UTC).date() + timedelta(days=1))
            start = first or end - length
        except OverflowError:
            raise invalid("from" if first else "to", "is outside the calendar") from None
        if not 0 < (end - start).days <= at_most:
            raise invalid("to", f"must be 1 to {at_most} days after from")
        return Days(start, end)

    return days


DayRange = Annotated[Days, Depends(_days(MAX_DAYS))]
CellRange = Annotated[Days, Depends(_days(MAX_CELL_DAYS))]


@dataclass(frozen=True)
class Page:
    """A part of a list."""

    limit: Annotated[int, Query(ge=1, le=200, description="Largest number of items.")] = 50
    offset: Annotated[int, Query(ge=0, le=1_000_000, description="Number of items to skip.")] = 0

    def items(self, reader: Reader, model: type[M], file: str, **parameters: Any) -> Items[M]:
        """Execute a statement with the placeholders ``limit`` and ``offset``, and a column ``total``.

        Args:
            reader: Reader of the database.
            model: Model of an item, with the names of the columns.
            file: File of the statement below ``include/sql``.
            parameters: Values of its other placeholders.
        """
        rows = reader.rows(file, **parameters, limit=self.limit, offset=self.offset)
        # A part after the last item has no row with the total.
        counted = rows or (reader.rows(file, **parameters, limit=1, offset=0) if self.offset else [])
        return Items(total=counted[0]["total"] if counted else 0, items=[model(**row) for row in rows])


PageOf = Annotated[Page, Depends()]


class Items(Camel, Generic[M]):
    """A part of a list.

    Attributes:
        total: Number of all items.
        items: The items of the requested part.
    """

    total: int
    items: list[M]
