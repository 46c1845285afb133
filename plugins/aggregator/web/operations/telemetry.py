"""Telemetry: what ``telemetry_daily`` stored."""

from __future__ import annotations

from datetime import date
from itertools import groupby
from operator import itemgetter

from fastapi import APIRouter

from aggregator.core.http import Camel
from aggregator.web.operations import access
from aggregator.web.operations.database import database
from aggregator.web.operations.params import SERIES, DayRange, Items, PageOf, Search


class EventSeries(Camel):
    """Events of a type and their distinct users by UTC day."""

    event: str
    count: list[int | None]
    users: list[int | None]


class EventDays(Camel):
    """Events by UTC day; None for a day without rollups.

    Attributes:
        total: Number of all event types in the range.
        counts: Events of all types.
        series: The most frequent types. Users are distinct for a type and a day, so they do not add up.
    """

    days: list[date]
    total: int
    counts: list[int | None]
    series: list[EventSeries]


class EventType(Camel):
    """Events of a type in a range of days, and the most distinct users of a day."""

    event: str
    count: int
    peak_users: int
    days: int
    last_day: date


router = APIRouter(prefix="/telemetry", tags=["telemetry"], dependencies=[access.dag("telemetry_daily")])
_database = database("telemetry_db")


@router.get("/days")
async def read_days(days: DayRange) -> EventDays:
    """Read events and users of the most frequent event types by day."""
    rows = await _database.read(
        lambda reader: reader.rows("telemetry/queries/operations_days.sql", series=SERIES, **days.parameters)
    )
    typed = [row for row in rows if row["event"] is not None]
    series = [
        EventSeries(event=event, count=days.column(own := [*rows_of], "count"), users=days.column(own, "users"))
        for event, rows_of in groupby(typed, itemgetter("event"))
    ]
    counts = days.column([row for row in rows if row["event"] is None], "count")
    return EventDays(days=days.all, total=typed[0]["types"] if typed else 0, counts=counts, series=series)


@router.get("/events")
async def read_events(days: DayRange, page: PageOf, search: Search = "") -> Items[EventType]:
    """List event types, the most frequent first."""
    parameters = {**days.parameters, "search": search}
    return await _database.read(
        lambda reader: page.items(reader, EventType, "telemetry/queries/operations_events.sql", **parameters)
    )
