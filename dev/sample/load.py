"""Loads the sample data of every product into a stack."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from psycopg import sql

from dev.sample import analytics, clicks

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import date

    import psycopg

    from dev.analytics_engine.client import AnalyticsEngineControl

DAYS = 8
"""UTC days of sample data, the last of them yesterday."""


def load(analytics_engine: AnalyticsEngineControl, products: psycopg.Connection) -> None:
    """Load everything; what an earlier call has loaded is replaced.

    Args:
        analytics_engine: Control of the stand-in that gets the events.
        products: Connection to the migrated database; the transaction is committed.
    """
    with products.cursor() as cursor:
        cursor.executemany("insert into public.hires (id) values (%(id)s) on conflict do nothing", clicks.hires())
    today = datetime.now(UTC).date()
    load_analytics(products, today)
    products.commit()
    analytics_engine.delete("clicks")
    for age in range(DAYS, 0, -1):
        analytics_engine.write("clicks", clicks.events(today - timedelta(days=age)))


def load_analytics(products: psycopg.Connection, today: date) -> None:
    """Load the inputs of the analytics DAGs; the transaction stays open.

    Args:
        products: Connection to the migrated database.
        today: The UTC day that is not over yet.
    """
    # Back to the beginning of last month, for its usage; today up to now, for the latest hour.
    first = (today.replace(day=1) - timedelta(days=1)).replace(day=1)
    days = [first + timedelta(days=age) for age in range((today - first).days + 1)]
    now = datetime.now(UTC).replace(tzinfo=None)
    activity = (row for day in days for row in analytics.contact_activity(day) if row["created_at"] < now)
    jobs = (row for day in days[-DAYS - 1 : -1] for row in analytics.enrichment_jobs(day))
    _replace(products, "analytics.contact_activity", activity)
    _replace(products, "scoring.lead_scores", analytics.lead_scores())
    _replace(products, "lead_intelligence.enrichment_jobs", jobs)


def _replace(products: psycopg.Connection, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Store the sample's rows in place of those that its organisations have."""
    name = sql.Identifier(*table.split("."))
    with products.cursor() as cursor:
        cursor.execute(
            sql.SQL("delete from {} where organization_id = any(%s::uuid[])").format(name),
            [list(analytics.organizations().values())],
        )
        rows = list(rows)
        columns = sql.SQL(", ").join(map(sql.Identifier, rows[0]))
        with cursor.copy(sql.SQL("copy {} ({}) from stdin").format(name, columns)) as copy:
            for row in rows:
                copy.write_row(list(row.values()))
