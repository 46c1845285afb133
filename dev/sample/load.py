"""Loads the sample data of every product into a stack."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from psycopg.types.json import Jsonb

from dev.sample import clicks, telemetry, warmup

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date

    import psycopg

    from dev.analytics_engine.client import AnalyticsEngineControl

DAYS = 8
"""UTC days of sample data, the last of them yesterday."""

_SENDING_DOMAIN = """
insert into delivery.sending_domains (organization_id, domain, verified, created_at)
values (%(organization_id)s, %(domain)s, %(verified)s, %(created_at)s)
on conflict (organization_id, domain) do update set verified = excluded.verified, created_at = excluded.created_at
"""

_WARMUP_COUNTER = """
insert into delivery.warmup_counters (organization_id, domain, day, sent)
values (%(organization_id)s, %(domain)s, %(day)s, %(sent)s)
on conflict (organization_id, domain, day) do update set sent = excluded.sent
"""


def load(analytics_engine: AnalyticsEngineControl, products: psycopg.Connection) -> None:
    """Load everything; what an earlier call has loaded is replaced.

    Args:
        analytics_engine: Control of the stand-in that gets the events.
        products: Connection to the migrated database; the transaction is committed.
    """
    today = datetime.now(UTC).date()
    with products.cursor() as cursor:
        cursor.executemany("insert into public.hires (id) values (%(id)s) on conflict do nothing", clicks.hires())
        cursor.executemany(_SENDING_DOMAIN, warmup.sending_domains(today))
        cursor.executemany(_WARMUP_COUNTER, warmup.counters(today))
    products.commit()
    analytics_engine.delete("clicks")
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
