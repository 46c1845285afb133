"""Clicks: what ``click_rollups`` stored for billing."""

from __future__ import annotations

from datetime import date

from fastapi import APIRouter

from aggregator.core.http import Camel
from aggregator.web.operations import access
from aggregator.web.operations.database import Reader, database
from aggregator.web.operations.params import DayRange, Items, PageOf, Search


class ClickDays(Camel):
    """Clicks by UTC day; None for a day without rollups."""

    days: list[date]
    valid: list[int | None]
    invalid: list[int | None]
    hires: list[int | None]


class Hire(Camel):
    """Clicks of a hire, and the number of days that have some."""

    hire_id: str
    valid: int
    invalid: int
    days: int


class HireRow(Hire):
    """A hire, and the clicks of all hires."""

    all_valid: int
    all_invalid: int


class Hires(Items[Hire]):
    """Hires, and the clicks of all of them."""

    valid: int
    invalid: int


router = APIRouter(prefix="/clicks", tags=["clicks"], dependencies=[access.dag("click_rollups")])
_database = database("clicks_db")


@router.get("/days")
async def read_days(days: DayRange) -> ClickDays:
    """Read valid and invalid clicks by day."""
    rows = await _database.read(lambda reader: reader.rows("clicks/queries/operations_days.sql", **days.parameters))
    return ClickDays(days=days.all, **{name: days.column(rows, name) for name in ("valid", "invalid", "hires")})


@router.get("/hires")
async def read_hires(days: DayRange, page: PageOf, search: Search = "") -> Hires:
    """List hires, those with the most valid clicks first."""
    parameters = {**days.parameters, "search": search}

    def read(reader: Reader) -> Hires:
        found = page.items(reader, HireRow, "clicks/queries/operations_hires.sql", **parameters)
        first = found.items[0] if found.items else None
        return Hires(
            total=found.total,
            items=list(found.items),
            valid=first.all_valid if first else 0,
            invalid=first.all_invalid if first else 0,
        )

    return await _database.read(read)
