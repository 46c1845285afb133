"""Detects windows whose source is empty although rows are stored (spec: shared parts)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg
    from psycopg.rows import TupleRow
    from structlog.typing import FilteringBoundLogger


def is_suspicious(
    cursor: psycopg.Cursor[TupleRow],
    stored: str,
    parameters: Mapping[str, Any],
    *,
    source: str,
    table: str,
    log: FilteringBoundLogger,
) -> bool:
    """Check whether rows are stored for a window whose source is empty, and log a warning if so. The rows stay.

    Args:
        cursor: A cursor on the target's database.
        stored: SELECT of one number: the rows that the target has for the window.
        parameters: Values of its placeholders.
        source: Name of the source for the log.
        table: The target.
        log: Log of the task.
    """
    (rows,) = cursor.execute(stored, parameters).fetchone() or (0,)
    if rows:
        log.warning(
            "SUSPICIOUS: the source is empty, but rows are stored for this window: source=%r table=%s stored=%d. "
            "Nothing was changed. If the source is correct, delete the rows by hand.",
            source,
            table,
            rows,
        )
    else:
        log.info("The source is empty, and no rows are stored for this window: source=%r table=%s", source, table)
    return bool(rows)
