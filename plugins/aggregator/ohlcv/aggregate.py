"""Second step of a run: build the bars of the claimed tasks."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import tenacity

from aggregator.core.text import listed
from aggregator.ohlcv.run import MAX_LISTED, Totals, checkpoint, execute, key_values
from aggregator.postgres.hook import describe
from aggregator.postgres.upsert import blames_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aggregator.ohlcv.run import Cursor, Run, Transaction

log = logging.getLogger(__name__)

MAX_REPEATING_SHARDS = 16
"""With more shards, each does one transaction only, so that the others do not wait for a free worker."""


def aggregate(
    transaction: Transaction, run: Run, *, shard: int, of: int, first: str | None = None, last: str | None = None
) -> Totals:
    """Build the windows of the tasks that the run has claimed in a shard, and release the tasks.

    One transaction builds at most ``MAX_WINDOWS_PER_TASK`` windows of a task. Tasks with more windows stay claimed for
    the next transaction. The first transaction always runs; others follow while they fit before ``run.repeat_until``.

    A retry continues with the tasks that are still claimed. A task whose lock was taken over is skipped. If PostgreSQL
    fails for a reason other than a symbol's rows, earlier transactions are stored.
    """
    parameters = {**run.parameters, "first": first, "last": last, "error": None}
    totals, transactions, longest, is_last = Totals(), 0, timedelta(), False
    details: dict[str, Any] = {}
    while not is_last:
        started = datetime.now(UTC)
        with transaction() as cursor:
            built, has_more = Totals(), False
            for timeframe, symbols in execute(cursor, "ohlcv/queries/claimed_symbols.sql", parameters).fetchall():
                counts, timeframe_has_more = build(cursor, run, timeframe, symbols)
                built += counts
                has_more |= timeframe_has_more
            # The first transaction has counted the tasks that stayed claimed.
            totals += replace(built, tasks=0) if transactions else built
            transactions += 1
            longest = max(longest, datetime.now(UTC) - started)
            has_time = run.repeat_until is not None and datetime.now(UTC) + longest < run.repeat_until
            is_last = not has_more or of > MAX_REPEATING_SHARDS or not has_time
            if is_last:
                details = {**asdict(totals), "transactions": transactions, "has_more": has_more}
                if has_more:
                    execute(cursor, "ohlcv/queries/release_tasks.sql", parameters)
                checkpoint(cursor, run, "aggregated", shard=shard, **details)
        longest = max(longest, datetime.now(UTC) - started)
    log.info("Aggregated shard=%d of=%d %s", shard, of, key_values(details))
    return totals


def build(cursor: Cursor, run: Run, timeframe: str, symbols: Sequence[str], **overrides: Any) -> tuple[Totals, bool]:
    """Build the windows of one timeframe by one statement.

    If PostgreSQL refuses a symbol's rows, the symbols are bisected to isolate it. Its task fails, the others succeed.

    Returns:
        The counts, and whether a task has more windows and stays claimed.
    """
    parameters = {**run.parameters, "timeframe": timeframe, "symbols": symbols, **overrides}
    try:
        *counts, failed, has_more = _execute_aggregate(cursor, parameters)
    except psycopg.Error as error:
        if not blames_rows(error):
            raise
        if len(symbols) == 1:
            return _fail_task(cursor, parameters, timeframe, symbols[0], describe(error)), False
        half = len(symbols) // 2
        parts = [build(cursor, run, timeframe, part, **overrides) for part in (symbols[:half], symbols[half:])]
        return sum((totals for totals, _ in parts), Totals()), any(has_more for _, has_more in parts)
    if failed:
        log.warning(
            "FAILED: %s of %s: a window has candles that cannot be in a bar. Each symbol stops at that window, and the "
            "others continue. See ops.ops_issues.",
            timeframe,
            listed(map(repr, failed), MAX_LISTED),
        )
    return replace(Totals(*counts), failed=len(failed)), has_more


@tenacity.retry(
    retry=tenacity.retry_if_exception_type(psycopg.errors.UniqueViolation),
    stop=tenacity.stop_after_attempt(3),
    reraise=True,
)
def _execute_aggregate(cursor: Cursor, parameters: Mapping[str, Any]) -> tuple[Any, ...]:
    """Retry if another session stored a bar during the statement; the next attempt sees that bar."""
    with cursor.connection.transaction():
        (row,) = execute(cursor, "ohlcv/queries/aggregate.sql", parameters)
    return row


def _fail_task(cursor: Cursor, parameters: Mapping[str, Any], timeframe: str, symbol: str, reason: str) -> Totals:
    execute(cursor, "ohlcv/queries/fail_task.sql", {**parameters, "symbol": symbol, "error": reason})
    log.warning(
        "FAILED: %s of %r: %s. This transaction stored no bar of the task; the others continue. See ops.ops_issues.",
        timeframe,
        symbol,
        reason,
    )
    return Totals(tasks=1, failed=1)
