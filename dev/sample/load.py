"""Loads the sample data of every product into a stack."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg import sql
from psycopg.types.json import Jsonb

from dev.sample import analytics, clicks, ohlcv, telemetry, warmup

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import date

    import psycopg

    from dev.analytics_engine.client import AnalyticsEngineControl

DAYS = 9
"""Number of UTC days with sample data; the last one is yesterday.

They include a week to backfill before the day of the newest run. Until the schedule fires, that is the day before
yesterday.
"""

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

_ASSET = """
insert into ohlcv.assets (symbol, base_timeframe, active, test_active, mandatory)
values (%(symbol)s, %(base_timeframe)s, %(active)s, %(test_active)s, %(mandatory)s)
on conflict do nothing
"""

_CANDLES = """
insert into ohlcv.candles
select * from pg_temp.candles
on conflict (symbol, timeframe, ts) do update
    set (open, high, low, close, volume, trades)
        = (excluded.open, excluded.high, excluded.low, excluded.close, excluded.volume, excluded.trades)
"""


def load(analytics_engine: AnalyticsEngineControl, products: psycopg.Connection, *, history: bool = False) -> None:
    """Load everything, and replace the data of an earlier call.

    Args:
        analytics_engine: Control of the stand-in for Analytics Engine.
        products: Connection to the migrated database; the transaction is committed.
        history: Whether to add :func:`load_history`.
    """
    today = datetime.now(UTC).date()
    with products.cursor() as cursor:
        cursor.executemany("insert into public.hires (id) values (%(id)s) on conflict do nothing", clicks.hires())
        cursor.executemany(_SENDING_DOMAIN, warmup.sending_domains(today))
        cursor.executemany(_WARMUP_COUNTER, warmup.counters(today))
    load_analytics(products, today)
    load_candles(products, today)
    if history:
        load_history(products)
    products.commit()
    analytics_engine.delete("clicks")
    days = [today - timedelta(days=age) for age in range(DAYS, 0, -1)]
    load_telemetry(products, days)
    for day in days:
        analytics_engine.write("clicks", clicks.events(day))


def load_history(products: psycopg.Connection) -> None:
    """Add what the DAGs would have written in the last four weeks, and candles for them. The transaction stays open.

    Args:
        products: Connection to the migrated database, which has the other sample data.
    """
    products.execute((Path(__file__).with_name("history.sql")).read_bytes())


def load_telemetry(products: psycopg.Connection, days: Iterable[date]) -> None:
    """Replace the rows of ``public.telemetry`` by the sample of some UTC days.

    Args:
        products: See :func:`load`.
        days: The days.
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


def load_candles(products: psycopg.Connection, today: date) -> None:
    """Load the candles of the previous days, and of today until now. The transaction stays open.

    Args:
        products: Connection to the migrated database.
        today: The current UTC day.
    """
    now = datetime.now(UTC)
    days = [today - timedelta(days=age) for age in range(DAYS, -1, -1)]
    with products.cursor() as cursor:
        cursor.execute("select ohlcv.add_candle_partitions(%s, %s)", [days[0], today])
        cursor.executemany(_ASSET, ohlcv.assets())
    rows = (row for day in days for row in ohlcv.candles(day, poisoned=day == days[-2]))
    _ingest(products, (row for row in rows if row["ts"] + timedelta(minutes=5) <= now))


def load_new_candles(products: psycopg.Connection, after: datetime, until: datetime) -> int:
    """Load the candles that a feed sends in a period, each when it ends. The transaction stays open.

    Args:
        products: Connection to the migrated database.
        after: Start of the period.
        until: End of the period.

    Returns:
        The number of candles.
    """
    days = [after.date() + timedelta(days=number) for number in range((until.date() - after.date()).days + 1)]
    rows = (row for day in days for row in ohlcv.candles(day))
    return _ingest(
        products,
        (row for row in rows if after < row["ts"] + timedelta(minutes=ohlcv.MINUTES[row["timeframe"]]) <= until),
    )


def load_late_candles(products: psycopg.Connection, day: date) -> int:
    """Load the late and the corrected candles of a day. The transaction stays open.

    Args:
        products: Connection to the migrated database.
        day: A UTC day in the past.

    Returns:
        The number of candles.
    """
    return _ingest(products, ohlcv.late_candles(day))


def _ingest(products: psycopg.Connection, rows: Iterable[Mapping[str, Any]]) -> int:
    """Upsert candles in one statement, as a feed does."""
    with products.cursor() as cursor:
        cursor.execute("create temporary table candles (like ohlcv.candles) on commit drop")
        with cursor.copy("copy pg_temp.candles from stdin") as copy:
            for row in rows:
                copy.write_row(list(row.values()))
        return cursor.execute(_CANDLES).rowcount


def load_analytics(products: psycopg.Connection, today: date) -> None:
    """Load the inputs of the analytics DAGs. The transaction stays open.

    Args:
        products: Connection to the migrated database.
        today: The current UTC day.
    """
    # Today until now, for the latest hour.
    first = activity_since(today)
    days = [first + timedelta(days=age) for age in range((today - first).days + 1)]
    now = datetime.now(UTC).replace(tzinfo=None)
    activity = (row for day in days for row in analytics.contact_activity(day) if row["created_at"] < now)
    jobs = (row for day in days[-DAYS - 1 : -1] for row in analytics.enrichment_jobs(day))
    _replace(products, "analytics.contact_activity", activity)
    _replace(products, "scoring.lead_scores", analytics.lead_scores())
    _replace(products, "lead_intelligence.enrichment_jobs", jobs)


def activity_since(today: date) -> date:
    """Return the first UTC day of the sample activity, which covers the newest month of analytics_monthly_usage.

    Args:
        today: See :func:`load_analytics`.
    """
    yesterday = today - timedelta(days=1)  # until the run on the first of a month, its month is older
    return (yesterday.replace(day=1) - timedelta(days=1)).replace(day=1)


def _replace(products: psycopg.Connection, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace the rows of the sample's organizations."""
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
