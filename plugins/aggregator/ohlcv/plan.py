"""First step of a run: find and claim the due tasks, and divide their symbols into shards."""

from __future__ import annotations

import logging
from datetime import timedelta
from math import ceil
from typing import TYPE_CHECKING, Any

import psycopg
from more_itertools import divide

from aggregator.ohlcv.run import SHARDS_PER_INSTANCE, checkpoint, execute, key_values, start
from aggregator.postgres.functions import call
from aggregator.postgres.hook import describe

if TYPE_CHECKING:
    from aggregator.ohlcv.run import Cursor, Run

log = logging.getLogger(__name__)

WINDOWS_PER_SHARD = 50_000
"""Windows of candles in one transaction of a backlog: a few seconds of work."""

MIN_SYMBOLS_TO_DIVIDE = 400
"""With this many symbols, two shards finish sooner than one, although PostgreSQL plans their statements twice."""

MAX_SHARDS = 64


def prepare_partitions(cursor: Cursor, run: Run) -> None:
    """Create the candle partitions of the coming months, and drop those older than the retention.

    Needs a transaction of its own, which briefly holds locks that ingest needs. If a long query holds a lock, the
    partitions are left to the next run: months are created two months ahead.
    """
    try:
        with cursor.connection.transaction():
            execute(cursor, "ohlcv/queries/add_partitions.sql", run.parameters)
    except psycopg.errors.LockNotAvailable as error:
        log.warning("Candle partitions were not added. The next run tries again: %s", describe(error))
    days = run.settings.candle_retention_days
    if days is None:
        return
    ((dropped,),) = call(
        cursor,
        "ohlcv.drop_candle_partitions",
        p_before=run.as_of - timedelta(days=days),
        p_env_name=run.settings.env_name,
    )
    if dropped:
        log.info("Dropped old candles retention_days=%d partitions=%s", days, ",".join(dropped))


def plan(cursor: Cursor, run: Run) -> list[dict[str, Any]]:
    """Open the run log, claim the due tasks, and divide their symbols into shards.

    A run that had finished before was cleared. It builds the windows that ended in its interval again.

    Returns:
        Keyword arguments of :func:`aggregator.ohlcv.aggregate.aggregate` for each shard; empty if no task is due.
    """

    def call_for_count(function: str, **arguments: Any) -> Any:
        ((count,),) = call(cursor, function, **arguments)
        return count

    was_finished = start(cursor, run)
    counts = {
        "synchronized": call_for_count("ohlcv.sync_tasks"),
        "recovered": call_for_count("ohlcv.recover_stale_locks", p_seconds=run.settings.running_stale_seconds),
        "stale": call_for_count("ohlcv.drain_candle_changes"),
        "rebuilt": 0,
    }
    if was_finished:
        ((counts["rebuilt"],),) = execute(cursor, "ohlcv/queries/mark_run_stale.sql", run.parameters)
    ((claimed, due),) = execute(cursor, "ohlcv/queries/claim_due_tasks.sql", run.parameters)
    ((symbols, windows),) = execute(cursor, "ohlcv/queries/claimed_work.sql", run.parameters)
    shards = _count_shards(len(symbols), windows, run.settings.ohlcv_symbols_per_shard)
    counts |= {"due": due, "claimed": claimed, "symbols": len(symbols), "shards": shards}
    checkpoint(cursor, run, "planned", **counts)
    log.info("Planned as_of=%s %s", run.as_of.isoformat(), key_values(counts))
    _warn_of_waiting_work(run, counts)
    parts = [list(part) for part in divide(shards, symbols)] if shards else []
    return [{"shard": shard, "of": shards, "first": part[0], "last": part[-1]} for shard, part in enumerate(parts)]


def _count_shards(symbols: int, windows: int, symbols_per_shard: int) -> int:
    if symbols >= MIN_SYMBOLS_TO_DIVIDE:
        symbols_per_shard = min(symbols_per_shard, ceil(symbols / SHARDS_PER_INSTANCE))
    wanted = max(ceil(symbols / symbols_per_shard), ceil(windows / WINDOWS_PER_SHARD))
    return min(wanted, symbols, MAX_SHARDS)


def _warn_of_waiting_work(run: Run, counts: dict[str, Any]) -> None:
    due, claimed, limit = counts["due"], counts["claimed"], run.settings.max_tasks_per_run
    if due > limit:
        log.warning(
            "%d of %d due tasks wait for later runs. Raise MAX_TASKS_PER_RUN (%d), or they may wait indefinitely.",
            due - claimed,
            due,
            limit,
        )
    if counts["stale"] is None:
        log.warning(
            "Changed candles were not processed, because another session holds a claim in an open transaction. The "
            "next run processes them."
        )
