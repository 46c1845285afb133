"""The right answers, computed by engines that are not ours."""

from __future__ import annotations

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
