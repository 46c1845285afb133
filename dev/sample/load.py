"""Loads the sample data of every product into a stack."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from dev.sample import clicks

if TYPE_CHECKING:
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
    products.commit()
    analytics_engine.delete("clicks")
    today = datetime.now(UTC).date()
    for age in range(DAYS, 0, -1):
        analytics_engine.write("clicks", clicks.events(today - timedelta(days=age)))
