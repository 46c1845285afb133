"""Analytics: what the six DAGs of the suite stored."""

from __future__ import annotations

from datetime import UTC, date, datetime
from itertools import groupby
from operator import itemgetter
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query

from aggregator.core.catalog import CATALOG, Tag
from aggregator.core.http import Camel
from aggregator.web.operations import access
from aggregator.web.operations.database import Reader, database
from aggregator.web.operations.params import SERIES, DayRange, Days, Items, Number, PageOf

MONTHS = 12
"""Months of usage."""


class Organization(Camel):
    """An organization with data."""

    organization_id: UUID


class Scores(Camel):
    """Distribution of lead scores by UTC day; None for a day without a snapshot."""

    days: list[date]
    contacts: list[int | None]
    avg: list[Number]
    min: list[int | None]
    p50: list[Number]
    p90: list[Number]
    p95: list[Number]
    max: list[int | None]


class Funnel(Camel):
    """Emails, and what their recipients did."""

    sent: int
    delivered: int
    opened: int
    unique_opened: int
    clicked: int
    unique_clicked: int
    bounced: int
    complained: int
    unsubscribed: int


class Campaign(Funnel):
    """A campaign of an organization."""

    campaign_id: UUID
    organization_id: UUID


class Campaigns(Items[Campaign]):
    """Campaigns, and the emails of all of them."""

    funnel: Funnel


class Enrichment(Camel):
    """Enrichment jobs by UTC day; None for a day without jobs.

    Attributes:
        enriched: Completed jobs.
        success_rate: Share of completed jobs, in percent; of several organizations, their mean.
        avg_cost: Average cost of a job; of several organizations, their mean.
        avg_freshness: From 1 (just completed) to 0 (90 days old); of several organizations, their mean.
    """

    days: list[date]
    enriched: list[int | None]
    success_rate: list[Number]
    avg_cost: list[Number]
    avg_freshness: list[Number]


class TypeSeries(Camel):
    """Events of a type and their distinct contacts, by day or month."""

    event_type: str
    count: list[int | None]
    unique: list[int | None]


class Events(Camel):
    """Events by UTC day; ``total`` is the number of all event types."""

    days: list[date]
    total: int
    series: list[TypeSeries]


class Usage(Camel):
    """Events by UTC month; ``total`` is the number of all event types."""

    months: list[date]
    total: int
    series: list[TypeSeries]


class Warmup(Camel):
    """Emails of domains that warm up by UTC day; None for a day without counters."""

    days: list[date]
    sent: list[int | None]
    domains: list[int | None]


OrganizationId = Annotated[UUID | None, Query(description="One organization; default: all.")]

router = APIRouter(prefix="/analytics", tags=["analytics"])
_database = database("analytics_db")
_SUITE = [dag_id for dag_id, facts in CATALOG.items() if Tag.ANALYTICS in facts.tags]


@router.get("/organizations", dependencies=[access.any_of(*_SUITE)])
async def read_organizations(page: PageOf) -> Items[Organization]:
    """List organizations."""
    return await _database.read(
        lambda reader: page.items(reader, Organization, "analytics/queries/operations_organizations.sql")
    )


@router.get("/scores", dependencies=[access.dag("analytics_score_distribution")])
async def read_scores(days: DayRange, organization_id: OrganizationId = None) -> Scores:
    """Read the distribution of lead scores by day."""
    rows = await _rows("analytics/queries/operations_scores.sql", days, organization_id=organization_id)
    names = ("contacts", "avg", "min", "p50", "p90", "p95", "max")
    return Scores(days=days.all, **{name: days.column(rows, name) for name in names})


@router.get("/campaigns", dependencies=[access.dag("analytics_daily_reports")])
async def read_campaigns(days: DayRange, page: PageOf, organization_id: OrganizationId = None) -> Campaigns:
    """List campaigns, those with the most emails first."""
    parameters = {**days.parameters, "organization_id": organization_id}

    def read(reader: Reader) -> Campaigns:
        found = page.items(reader, Campaign, "analytics/queries/operations_campaigns.sql", **parameters)
        funnel = reader.row("analytics/queries/operations_funnel.sql", **parameters)
        return Campaigns(total=found.total, items=found.items, funnel=Funnel(**funnel))

    return await _database.read(read)


@router.get("/enrichment", dependencies=[access.dag("analytics_enrichment_metrics")])
async def read_enrichment(days: DayRange, organization_id: OrganizationId = None) -> Enrichment:
    """Read success, cost and freshness of lead enrichment by day."""
    rows = await _rows("analytics/queries/operations_enrichment.sql", days, organization_id=organization_id)
    names = ("enriched", "success_rate", "avg_cost", "avg_freshness")
    return Enrichment(days=days.all, **{name: days.column(rows, name) for name in names})


@router.get("/events", dependencies=[access.dag("analytics_hourly_aggregation")])
async def read_events(days: DayRange, organization_id: OrganizationId = None) -> Events:
    """Read the most frequent event types by day."""
    total, series = await _series(days, days.all, organization_id, is_monthly=False)
    return Events(days=days.all, total=total, series=series)


@router.get("/usage", dependencies=[access.dag("analytics_monthly_usage")])
async def read_usage(organization_id: OrganizationId = None) -> Usage:
    """Read the most frequent event types of the last 12 months."""
    today = datetime.now(UTC).date()
    number = today.year * 12 + today.month - 1
    months = [date(each // 12, each % 12 + 1, 1) for each in range(number - MONTHS, number)]
    total, series = await _series(Days(months[0], today.replace(day=1)), months, organization_id, is_monthly=True)
    return Usage(months=months, total=total, series=series)


@router.get("/warmup", dependencies=[access.dag("analytics_warmup_reset")])
async def read_warmup(days: DayRange) -> Warmup:
    """Read the emails of domains that warm up, by day."""
    rows = await _rows("warmup/queries/operations_days.sql", days)
    return Warmup(days=days.all, **{name: days.column(rows, name) for name in ("sent", "domains")})


async def _rows(file: str, days: Days, **parameters: Any) -> list[dict[str, Any]]:
    return await _database.read(lambda reader: reader.rows(file, **days.parameters, **parameters))


async def _series(
    days: Days, dates: list[date], organization_id: UUID | None, *, is_monthly: bool
) -> tuple[int, list[TypeSeries]]:
    rows = await _rows(
        "analytics/queries/operations_events.sql",
        days,
        organization_id=organization_id,
        is_monthly=is_monthly,
        series=SERIES,
    )
    series = []
    for event_type, own in groupby(rows, itemgetter("event_type")):
        by_date = {row["day"]: row for row in own}
        count, unique = ([by_date.get(each, {}).get(name) for each in dates] for name in ("count", "unique_count"))
        series.append(TypeSeries(event_type=event_type.removeprefix("monthly:"), count=count, unique=unique))
    return (rows[0]["types"] if rows else 0), series
