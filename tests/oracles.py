"""The right answers, computed by engines that are not ours."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


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
