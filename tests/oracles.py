"""Expected results, computed by other engines."""

from __future__ import annotations

import hashlib
import uuid
from contextlib import suppress
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date, datetime

    Rows = list[tuple[object, ...]]
    Events = Sequence[Mapping[str, Any]]


def rollups_of(events: Iterable[Mapping[str, Any]], hires: Iterable[str]) -> list[tuple[object, ...]]:
    """Hire, valid and invalid clicks for events of one day, by hire, for the known hires (DuckDB)."""
    schema = pa.schema({"_sample_interval": pa.int64(), "blob4": pa.string(), "double2": pa.float64()})
    clicked = pa.Table.from_pylist([{name: event.get(name) for name in schema.names} for event in events], schema)
    known = pa.table({"id": pa.array(hires, pa.string())})
    with duckdb.connect() as engine:
        engine.register("clicked", clicked)
        engine.register("known", known)
        return engine.execute("""
            select
                blob4,
                sum(case when coalesce(double2, 0) = 0 then coalesce(_sample_interval, 1) else 0 end)::bigint,
                sum(case when double2 = 1 then coalesce(_sample_interval, 1) else 0 end)::bigint
            from clicked where blob4 in (select id from known)
            group by blob4 order by blob4 collate "C"
        """).fetchall()


def telemetry_of(events: Iterable[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    """UTC day, event, count, unique users, sum of values and merged meta, by day and event.

    DuckDB counts; metas are merged one event after another, in the order of ``created_at`` and ``id``.
    """
    rows = sorted(events, key=lambda row: (row["created_at"], row["id"]))
    metas: dict[tuple[Any, str], dict[str, Any]] = {}
    for row in rows:
        if isinstance(row["meta"], dict):
            metas.setdefault((row["created_at"].astimezone(UTC).date(), row["event"]), {}).update(row["meta"])
    columns: dict[str, Any] = {
        "created_at": pa.timestamp("us", "UTC"),
        "event": pa.string(),
        "user_id": pa.string(),
        "value": pa.decimal128(30, 6),
    }
    table = pa.table({name: pa.array([row[name] for row in rows], type_) for name, type_ in columns.items()})
    with duckdb.connect() as engine:
        engine.execute("set timezone = 'UTC'")
        engine.register("telemetry", table)
        totals = engine.execute("""
            select created_at::date as day, event, count(*), count(distinct user_id),
                sum(case when value is null or value = 0 then 1 else value end)
            from telemetry where event is not null
            group by all order by day, event collate "C"
        """).fetchall()
    return [(*total, metas.get((total[0], total[1])) or None) for total in totals]


def event_aggregates_of(activity: Events, day: date) -> Rows:
    """Organization, type, events and distinct contacts of one day (DuckDB)."""
    return _ask(
        """
        select organization_id, event_type, count(*), count(distinct contact_id) from given
        where strftime(created_at, '%Y-%m-%d') = $window
        group by all order by organization_id, event_type collate "C"
        """,
        _ACTIVITY,
        activity,
        window=f"{day:%Y-%m-%d}",
    )


def monthly_usage_of(activity: Events, month: date) -> Rows:
    """Organization, stored type, events and distinct contacts of the month that contains a day (DuckDB)."""
    named = [{**event, "event_type": monthly_type(event["event_type"])} for event in activity]
    return _ask(
        """
        select organization_id, event_type, count(*), count(distinct contact_id) from given
        where strftime(created_at, '%Y-%m') = $window
        group by all order by organization_id, event_type collate "C"
        """,
        _ACTIVITY,
        named,
        window=f"{month:%Y-%m}",
    )


def monthly_type(event_type: str) -> str:
    """The type under which a month's events of ``event_type`` are stored."""
    if len(event_type) > 92:
        event_type = event_type[:59] + "~" + hashlib.sha256(event_type.encode()).hexdigest()[:32]
    return f"monthly:{event_type}"


def campaign_stats_of(activity: Events, day: date) -> Rows:
    """Campaign, organization, and the nine counts of one day (DuckDB; Python's uuid recognizes campaigns)."""
    with_campaign = [{**event, "event_source": _canonical_uuid(event["event_source"])} for event in activity]
    kinds = ("sent", "delivered", "opened", "clicked", "bounced", "complained", "unsubscribed")
    return _ask(
        """
        with mails as (
            select *, substr(event_type, 7) as kind from given
            where event_type in (select 'email_' || unnest($kinds))
            and event_source is not null and strftime(created_at, '%Y-%m-%d') = $window
        ),
        totals as (pivot mails on kind in ({kinds}) using count(*) group by event_source, organization_id),
        contacts as (
            select event_source, organization_id,
                len(list_distinct(list(contact_id) filter (kind = 'opened' and contact_id is not null))) as opened,
                len(list_distinct(list(contact_id) filter (kind = 'clicked' and contact_id is not null))) as clicked
            from mails group by all
        )
        select event_source, organization_id, sent, delivered, totals.opened, coalesce(contacts.opened, 0),
            totals.clicked, coalesce(contacts.clicked, 0), bounced, complained, unsubscribed
        from totals join contacts using (event_source, organization_id) order by event_source, organization_id
        """.replace("{kinds}", ", ".join(f"'{kind}'" for kind in kinds)),
        _ACTIVITY,
        with_campaign,
        window=f"{day:%Y-%m-%d}",
        kinds=list(kinds),
    )


def _canonical_uuid(text: str | None) -> str | None:
    with suppress(ValueError):
        if text is not None and str(uuid.UUID(text)) == text.lower():
            return text.lower()
    return None


def score_distribution_of(scores: Events) -> Rows:
    """Organization, average, extremes, 50th, 90th and 95th percentile and contacts (DuckDB, with integers)."""
    return _ask(
        """
        with sorted as (
            select organization_id, count(*) as n, sum(total_score) as total, list_sort(list(total_score)) as scores
            from given group by all
        ),
        -- Between two scores a percentile lies on a whole twentieth of the way.
        places as (
            select *, [place // 20 + 1 for place in [10 * (n - 1), 18 * (n - 1), 19 * (n - 1)]] as below,
                [place % 20 for place in [10 * (n - 1), 18 * (n - 1), 19 * (n - 1)]] as twentieths
            from sorted
        ),
        percentiles as (
            select *, [
                scores[below[k]] * (20 - twentieths[k]) + coalesce(scores[below[k] + 1], 0) * twentieths[k]
                for k in [1, 2, 3]
            ] as p
            from places
        )
        select organization_id, (round(total * 100 / n) / 100)::decimal(5, 2), scores[1], scores[-1],
            floor((p[1] + 10) / 20)::int, floor((p[2] + 10) / 20)::int, floor((p[3] + 10) / 20)::int, n
        from percentiles order by organization_id
        """,
        {"organization_id": pa.string(), "total_score": pa.int64()},
        scores,
    )


def enrichment_metrics_of(jobs: Events, day: date, end: datetime) -> Rows:
    """Organization, completed jobs, their share, average cost and freshness at ``end`` (DuckDB, with integers)."""
    ninety_days = 90 * 86400 * 10**6
    given = [
        {
            **job,
            "cost": job["total_cost"] and int(job["total_cost"] * 10_000),
            "age": job["completed_at"]
            and min(max((end - job["completed_at"]) // timedelta(microseconds=1), 0), ninety_days),
        }
        for job in jobs
    ]
    return _ask(
        """
        select organization_id, count(*) filter (status = 'completed'),
            (round(count(*) filter (status = 'completed') * 10000 / count(*)) / 100)::decimal(5, 2),
            coalesce((round(sum(cost) / count(cost)) / 10000)::decimal(8, 4), 0),
            coalesce((round(100 * sum($ninety_days - age) filter (status = 'completed')
                / ($ninety_days * count(age) filter (status = 'completed'))) / 100)::decimal(5, 2), 0)
        from given where strftime(created_at, '%Y-%m-%d') = $window
        group by all order by organization_id
        """,
        {
            "organization_id": pa.string(),
            "status": pa.string(),
            "cost": pa.int64(),
            "age": pa.int64(),
            "created_at": pa.timestamp("us"),
        },
        given,
        window=f"{day:%Y-%m-%d}",
        ninety_days=ninety_days,
    )


_ACTIVITY = {
    "organization_id": pa.string(),
    "contact_id": pa.string(),
    "event_type": pa.string(),
    "event_source": pa.string(),
    "created_at": pa.timestamp("us"),
}


def _ask(query: str, columns: Mapping[str, pa.DataType], rows: Events, **parameters: object) -> Rows:
    schema = pa.schema(columns.items())
    given = pa.Table.from_pylist([{name: row[name] for name in schema.names} for row in rows], schema)
    with duckdb.connect() as engine:
        engine.register("given", given)
        return engine.execute(query, parameters).fetchall()


def bars_of(
    candles: Iterable[Sequence[Any]], until: datetime, in_use: Iterable[tuple[str, str, datetime, datetime]] = ()
) -> dict[tuple[str, str, datetime], tuple[Any, ...]]:
    """The bars of all windows that are over at ``until``, each directly from the base candles (DuckDB).

    Args:
        candles: Symbol, base timeframe, moment, open, high, low, close (two decimals), volume (three) and trades.
        until: A moment.
        in_use: Symbol, base timeframe, and from when to when it was in use. Each 5 minutes are taken from the timeframe
            in use, or from another one where it has no candle. Without any, a symbol has one base timeframe.

    Returns:
        By symbol, timeframe and moment: open, high, low, close, volume, the sum of (high + low + close) times volume,
        trades, candles and quality. Candles are counted in the finest timeframe of their window.
    """
    names = ("symbol", "step", "ts", "open", "high", "low", "close", "volume", "trades")
    types = [pa.string(), pa.int64(), pa.timestamp("us", "UTC"), *[pa.float64()] * 4, pa.decimal128(18, 3), pa.int64()]
    rows = [(symbol, _STEPS[base], *values) for symbol, base, *values in candles]
    used = [(symbol, _STEPS[base], *range_) for symbol, base, *range_ in in_use]
    with duckdb.connect() as engine:
        engine.execute("set timezone = 'UTC'")
        engine.register("candles", _table(names, types, rows))
        engine.register("in_use", _table(("symbol", "step", "begins", "ends"), [*types[:3], types[2]], used))
        found = engine.execute(
            """
            with judged as (
                select candles.*, coalesce(candles.step = in_use.step, true) as preferred,
                    bool_or(coalesce(candles.step = in_use.step, true)) over (
                        partition by candles.symbol, epoch_us(ts) // 300000000
                    ) as has_preferred
                from candles
                left join in_use on candles.symbol = in_use.symbol and ts >= begins and ts < ends
            ),
            windows as (
                select *, epoch_us(ts) // (minutes * 60000000) * minutes * 60000000 as begins
                from judged,
                    (values ('15m', 15::bigint), ('1h', 60), ('4h', 240), ('1d', 1440)) as t(timeframe, minutes)
                where preferred or not has_preferred
            )
            select symbol, timeframe, make_timestamptz(begins), arg_min(open, ts), max(high), min(low),
                arg_max(close, ts), sum(volume),
                sum((high + low + close)::decimal(18, 2) * volume), sum(trades)::bigint,
                (sum(step) // min(step))::bigint,
                case
                    when sum(step) = minutes then 2
                    when 5 * sum(step) >= 4 * minutes then 1
                    when 5 * sum(step) >= 3 * minutes then 0
                    else -1
                end
            from windows
            where begins + minutes * 60000000 <= epoch_us($until::timestamptz)
            group by symbol, timeframe, minutes, begins
            """,
            {"until": until},
        ).fetchall()
    return {(symbol, timeframe, ts.astimezone(UTC)): tuple(values) for symbol, timeframe, ts, *values in found}


_STEPS = {"1m": 1, "5m": 5}


def _table(names: Sequence[str], types: Sequence[pa.DataType], rows: Rows) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    return pa.table({name: pa.array(column, type_) for name, column, type_ in zip(names, columns, types, strict=True)})
