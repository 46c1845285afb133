"""Commands for the tasks of ``ohlcv_aggregation`` (spec: OHLCV).

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
from aggregator.ohlcv.aggregation import CONNECTION, NAMED_AT_MOST, TIMEFRAMES
from aggregator.postgres.hook import execute

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COMMAND_TIMEOUT = timedelta(seconds=30)

HEALTHY_TASKS = (
    "Healthy: waits for candles, for the end of its window, or for a run that is overdue for less than 6 minutes; the "
    "lag is below the timeframe and 6 minutes. A task that waits for bars of a finer timeframe is blocked by it if the "
    "finer one is overdue or disabled. If a task is disabled or hard_failed, correct its candles, then run python -m "
    "aggregator.ohlcv reset."
)
"""How to read the table of tasks."""


def _execute(file: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    return execute(file, parameters, CONNECTION, timeout=COMMAND_TIMEOUT, application_name="aggregator/ohlcv")


def show_frontier(tasks: Mapping[str, Sequence[str] | None]) -> int:
    """Print how far the tasks are, those that need somebody first, and the candles that no task will process.

    Args:
        tasks: ``symbols`` and ``timeframes``; null: all.

    Returns:
        0, the exit code.
    """
    from rich.console import Console  # noqa: PLC0415  # tasks print nothing
    from rich.table import Column, Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    moments = [Column(name, no_wrap=True) for name in ("cursor", "newest source")]
    table = Table("symbol", "timeframe", *moments, "lag", "waits for")
    errors = []
    found = _execute("ohlcv/queries/frontier.sql", tasks)
    for symbol, timeframe, cursor, newest, lag, status, waits_for, overdue, error, _ in found:
        known = [_minute(moment) if moment else "" for moment in (cursor, newest)]
        state = status if status in {"disabled", "hard_failed"} else waits_for
        if overdue and state is waits_for:
            state += f", overdue {timedelta(seconds=overdue // timedelta(seconds=1))}"
        table.add_row(*map(Text, [symbol, timeframe, *known, "" if lag is None else str(lag), state]))
        if error:
            errors.append(f"{symbol} {timeframe}: {error}")
    Console().print(table)
    if found and found[0][-1] > len(found):
        print(f"and {found[0][-1] - len(found):,} more tasks: choose some with --symbol, or query ohlcv.frontier.")
    print(HEALTHY_TASKS)
    print(*errors, sep="\n", end="\n" if errors else "")
    _show_unprocessed_candles(tasks["symbols"])
    return 0


def _show_unprocessed_candles(symbols: Sequence[str] | None) -> None:
    given = {"symbols": symbols, "env_name": OhlcvSettings.load().env_name, "named_at_most": NAMED_AT_MOST}
    found = _execute("ohlcv/queries/unprocessed_candles.sql", given)
    if not found:
        return
    print("\nCandles that no task will process:")
    for symbol, timeframe, first, last, reason, _ in found:
        print(f"{symbol!r} {timeframe}, {_minute(first)} to {_minute(last)} UTC: {reason}")
    kinds = found[0][-1]
    if kinds > len(found):
        print(f"and {kinds - len(found):,} more: see ohlcv.unprocessed_candles('{given['env_name']}')")


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"


def reset(tasks: Mapping[str, Sequence[str] | None]) -> int:
    """Make disabled and hard-failed tasks idle again, so that the next run takes them.

    Args:
        tasks: ``symbols`` and ``timeframes``; null: all.

    Returns:
        The exit code: 0, or 1 if there is none.
    """
    found = _execute("ohlcv/queries/reset_tasks.sql", tasks)
    for symbol, timeframe, was in found:
        print(f"{symbol} {timeframe}: was {was}, idle again")
    if not found:
        print("No task is disabled or hard_failed.", file=sys.stderr)
    return 0 if found else 1


def mark_changed(range_: Mapping[str, Any]) -> int:
    """Mark the candles of a range as changed, so that the next run builds their bars again.

    Triggers do this for ordinary statements. They do not see candles that a subscriber of a logical replication wrote,
    or that were written while the triggers were disabled.

    Args:
        range_: ``symbols`` (null: all), ``starts_at`` and ``ends_at``, half-open.

    Returns:
        The exit code: 0, or 1 if there is nothing to mark.
    """
    if range_["starts_at"] >= range_["ends_at"]:
        msg = f"--start {range_['starts_at']} is not before --end {range_['ends_at']}. Nothing was marked."
        raise PermanentError(msg)
    marked = dict(_execute("ohlcv/queries/mark_changed.sql", range_))
    if unknown := sorted(set(range_["symbols"] or ()) - marked.keys()):
        names = listed(map(repr, unknown), NAMED_AT_MOST)
        print(f"Not marked, because they have no tasks or the range is before their start: {names}")
    if empty := [symbol for symbol, has_candles in marked.items() if not has_candles]:
        names = listed(map(repr, empty), NAMED_AT_MOST)
        print(f"No candles in the range, so that their bars stay: {names}")
    print(f"Symbols marked: {len(marked)}. The next run builds their bars of the range again.")
    return 0 if marked else 1


def _utc(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def main(arguments: Sequence[str] | None = None) -> int:
    """Show or reset tasks, or mark candles as changed.

    Returns:
        The exit code: 0, or 1 after an error, which is printed.
    """
    parser = argparse.ArgumentParser(prog="python -m aggregator.ohlcv", description="The tasks of ohlcv_aggregation.")
    commands = parser.add_subparsers(required=True)
    for name, words, action in (
        ("frontier", "how far they are", show_frontier),
        ("reset", "make disabled and hard_failed ones idle", reset),
        ("mark-changed", "build bars again whose candles changed without the triggers", mark_changed),
    ):
        command = commands.add_parser(name, help=words)
        command.set_defaults(action=action)
        command.add_argument("--symbol", nargs="+", dest="symbols", help="which; all if none is given")
        if action is mark_changed:
            command.add_argument(
                "--start", dest="starts_at", required=True, type=_utc, help="ISO 8601; UTC if no offset"
            )
            command.add_argument("--end", dest="ends_at", required=True, type=_utc, help="likewise; exclusive")
        else:
            command.add_argument("--timeframe", nargs="+", dest="timeframes", choices=TIMEFRAMES, help="likewise")
    given = vars(parser.parse_args(arguments))
    action = given.pop("action")
    try:
        return int(action(given))
    except AggregatorError as error:
        print(error, file=sys.stderr)
        return 1
