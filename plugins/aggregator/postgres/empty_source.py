"""An empty source never erases stored rows; where there are some, somebody has to be told (spec: shared parts)."""

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
    """Whether a window whose source has nothing has stored rows, and a warning if so. The rows stay as they are.

    Args:
        cursor: On the target's database.
        stored: SELECT of one number, how many rows the target has for the window.
        parameters: Values for its placeholders.
        source: What has nothing, as the warning begins with it.
        table: The target.
        log: Of the task.
    """
    (rows,) = cursor.execute(stored, parameters).fetchone() or (0,)
    if rows:
        log.warning(
            "SUSPICIOUS: %s has nothing for this window, and %s has %d rows of it. They were left as they are. If the "
            "source really has nothing, delete the rows by hand.",
            source,
            table,
            rows,
        )
    else:
        log.info("%s has nothing for this window, and %s has no rows of it.", source, table)
    return bool(rows)
