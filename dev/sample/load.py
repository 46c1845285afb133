"""Loads the sample data of every product into a stack."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from psycopg.types.json import Jsonb

from dev.sample import clicks, telemetry

if TYPE_CHECKING:
    from collections.abc import Iterable
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
    products.commit()
    analytics_engine.delete("clicks")
    today = datetime.now(UTC).date()
    days = [today - timedelta(days=age) for age in range(DAYS, 0, -1)]
    load_telemetry(products, days)
    for day in days:
        analytics_engine.write("clicks", clicks.events(day))


def load_telemetry(products: psycopg.Connection, days: Iterable[date]) -> None:
    """Replace ``public.telemetry`` by the sample of some UTC days.

    Args:
        products: As for :func:`load`.
        days: Which.
    """
    columns = ("user_id", "event", "value", "meta", "created_at")
    with products.cursor() as cursor:
        cursor.execute("truncate public.telemetry")
        with cursor.copy(f"copy public.telemetry ({', '.join(columns)}) from stdin") as copy:
            for day in days:
                for event in telemetry.events(day):
                    meta = None if event["meta"] is None else Jsonb(event["meta"])
                    copy.write_row([{**event, "meta": meta}[column] for column in columns])
    products.commit()
