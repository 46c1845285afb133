"""Commands for the tasks of ``ohlcv_aggregation``.

python -m aggregator.ohlcv frontier [--symbol …] [--timeframe …]
python -m aggregator.ohlcv reset [--symbol …] [--timeframe …]
python -m aggregator.ohlcv mark-changed --start … --end … [--symbol …]
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from aggregator.core.errors import AggregatorError, PermanentError
from aggregator.core.settings import OhlcvSettings
from aggregator.core.text import listed
from aggregator.ohlcv.run import CONNECTION, MAX_LISTED, TIMEFRAMES, execute
from aggregator.postgres.functions import call
from aggregator.postgres.hook import PostgresTransactionHook

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from aggregator.ohlcv.run import Cursor

COMMAND_TIMEOUT = timedelta(seconds=30)

HEALTHY_TASKS = (
    "A task is healthy if it waits for candles, for the end of its window, or for a run that is overdue for less than "
    "6 minutes. Its lag is then below its timeframe plus 6 minutes. A task that waits for bars of a finer timeframe is "
    "blocked if the finer task is overdue or disabled. If a task is disabled or hard_failed, correct its candles, then "
    "run: python -m aggregator.ohlcv reset"
)
"""How to read the table of tasks."""


def _transaction() -> AbstractContextManager[Cursor]:
    hook = PostgresTransactionHook(CONNECTION)
    return hook.transaction(timeout=COMMAND_TIMEOUT, application_name="aggregator/ohlcv")


def show_frontier(tasks: Mapping[str, Sequence[str] | None]) -> int:
    """Print the progress of each task, stopped tasks first, and the candles that no task will process."""
    from rich.console import Console  # noqa: PLC0415  # tasks print nothing
    from rich.table import Column, Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    timestamps = [Column(name, no_wrap=True) for name in ("cursor", "newest source")]
    table = Table("symbol", "timeframe", *timestamps, "lag", "waits for")
    errors = []
    with _transaction() as transaction:
        rows = execute(transaction, "ohlcv/queries/frontier.sql", tasks).fetchall()
    for symbol, timeframe, cursor, newest, lag, status, waits_for, overdue, error, _ in rows:
        progress = [_minute(timestamp) if timestamp else "" for timestamp in (cursor, newest)]
        state = status if status in {"disabled", "hard_failed"} else waits_for
        if overdue and state is waits_for:
            state += f", overdue {timedelta(seconds=overdue // timedelta(seconds=1))}"
        table.add_row(*map(Text, [symbol, timeframe, *progress, "" if lag is None else str(lag), state]))
        if error:
            errors.append(f"{symbol} {timeframe}: {error}")
    Console().print(table)
    if rows and rows[0][-1] > len(rows):
        print(f"and {rows[0][-1] - len(rows):,} more tasks. Filter with --symbol, or query ohlcv.frontier.")
    print(HEALTHY_TASKS)
    print(*errors, sep="\n", end="\n" if errors else "")
    _show_unprocessed_candles(tasks["symbols"])
    return 0


def _show_unprocessed_candles(symbols: Sequence[str] | None) -> None:
    env_name = OhlcvSettings.load().env_name
    parameters = {"symbols": symbols, "env_name": env_name, "named_at_most": MAX_LISTED}
    with _transaction() as cursor:
        rows = execute(cursor, "ohlcv/queries/unprocessed_candles.sql", parameters).fetchall()
    if not rows:
        return
    print("\nCandles that no task will process:")
    for symbol, timeframe, first, last, reason, _ in rows:
        print(f"{symbol!r} {timeframe}, {_minute(first)} to {_minute(last)} UTC: {reason}")
    groups = rows[0][-1]
    if groups > len(rows):
        print(f"and {groups - len(rows):,} more: query ohlcv.unprocessed_candles('{env_name}')")


def _minute(timestamp: datetime) -> str:
    return f"{timestamp:%Y-%m-%d %H:%M}"


def reset(tasks: Mapping[str, Sequence[str] | None]) -> int:
    """Set disabled and hard-failed tasks to idle, so that the next run processes them. Return 1 if there is none."""
    with _transaction() as cursor:
        rows = call(cursor, "ohlcv.reset_tasks", p_symbols=tasks["symbols"], p_timeframes=tasks["timeframes"])
    for symbol, timeframe, previous in sorted(rows):
        print(f"{symbol} {timeframe}: was {previous}, now idle")
    if not rows:
        print("No task is disabled or hard_failed. Nothing was changed.", file=sys.stderr)
    return 0 if rows else 1


def mark_changed(candles: Mapping[str, Any]) -> int:
    """Mark the candles of a range as changed, so that the next run builds their bars again.

    Statement triggers do this for ordinary writes. They do not fire for writes of a logical replication subscriber,
    nor while triggers are disabled. Return 1 if no symbol was marked.
    """
    symbols, starts_at, ends_at = candles["symbols"], candles["starts_at"], candles["ends_at"]
    if starts_at >= ends_at:
        msg = f"--start {starts_at} is not before --end {ends_at}. Nothing was marked. Correct the range."
        raise PermanentError(msg)
    with _transaction() as cursor:
        rows = call(cursor, "ohlcv.mark_changed", p_symbols=symbols, p_from=starts_at, p_to=ends_at)
    marked: dict[str, bool] = dict(rows)
    if unknown := sorted(set(symbols or ()) - marked.keys()):
        names = listed(map(repr, unknown), MAX_LISTED)
        print(f"Not marked, because they have no tasks or the range is before their start: {names}")
    if empty := [symbol for symbol, has_candles in marked.items() if not has_candles]:
        names = listed(map(repr, empty), MAX_LISTED)
        print(f"No candles in the range, so their bars are kept: {names}")
    print(f"Symbols marked: {len(marked)}. The next run builds their bars of the range again.")
    return 0 if marked else 1


def _utc(text: str) -> datetime:
    timestamp = datetime.fromisoformat(text)
    return timestamp if timestamp.tzinfo else timestamp.replace(tzinfo=UTC)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Return the exit code: 0, or 1 after an error, which is printed."""
    parser = argparse.ArgumentParser(prog="python -m aggregator.ohlcv", description="The tasks of ohlcv_aggregation.")
    commands = parser.add_subparsers(required=True)
    for name, help_, action in (
        ("frontier", "show the progress of tasks, and candles that no task will process", show_frontier),
        ("reset", "set disabled and hard_failed tasks to idle", reset),
        ("mark-changed", "let the next run rebuild the bars of a range whose changes fired no triggers", mark_changed),
    ):
        command = commands.add_parser(name, help=help_, description=f"{help_[0].upper()}{help_[1:]}.")
        command.set_defaults(action=action)
        command.add_argument("--symbol", nargs="+", dest="symbols", help="symbols (default: all)")
        if action is mark_changed:
            for option, dest, how in (("--start", "starts_at", ""), ("--end", "ends_at", "; exclusive")):
                text = f"ISO 8601, UTC if without an offset{how}"
                command.add_argument(option, dest=dest, required=True, type=_utc, help=text)
        else:
            text = "timeframes (default: all)"
            command.add_argument("--timeframe", nargs="+", dest="timeframes", choices=TIMEFRAMES, help=text)
    given = vars(parser.parse_args(arguments))
    action = given.pop("action")
    try:
        return int(action(given))
    except AggregatorError as error:
        print(error, file=sys.stderr)
        return 1
