"""Rows of the report, and the threads that run the checks."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from threading import Thread
from typing import TYPE_CHECKING

from aggregator.core.errors import AggregatorError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import timedelta

    Check = Callable[[], Iterator["Row"]]

MAX_SKEW = 5.0
"""Difference of two clocks in seconds above which it is a warning. HTTP servers report whole seconds."""


class Status(StrEnum):
    """The result of a check."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True)
class Row:
    """One line of the report.

    Attributes:
        subject: A connection, or a part of the installation.
        check: What was checked.
        status: The result.
        found: What was found. It contains no secret.
        advice: What to do; empty if there is nothing to do, or if ``found`` contains it.
    """

    subject: str
    check: str
    status: Status
    found: str
    advice: str = ""


def clock(subject: str, seconds: float) -> Row:
    """The row for a clock that differs from this machine's by a number of seconds."""
    status = Status.OK if abs(seconds) <= MAX_SKEW else Status.WARNING
    advice = "" if status is Status.OK else "Synchronize the clocks of this machine and the server (NTP)."
    return Row(subject, "clock", status, f"differs by {seconds:+.1f} s", advice)


def run(checks: Mapping[str, Check], limit: timedelta) -> list[Row]:
    """Run checks concurrently, each in a thread of its own.

    Args:
        checks: Subject → its check.
        limit: Time limit of all of them together. A check that hangs is abandoned, and its rows so far are kept.

    Returns:
        The rows in the order of the checks. An error of a check is a row, too.
    """
    rows: dict[str, list[Row]] = {subject: [] for subject in checks}
    threads = [
        Thread(target=_collect, args=(subject, check, rows[subject]), daemon=True) for subject, check in checks.items()
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + limit.total_seconds()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [
        row for thread, subject in zip(threads, checks, strict=True) for row in _finished(thread, subject, rows, limit)
    ]


def _finished(thread: Thread, subject: str, rows: Mapping[str, list[Row]], limit: timedelta) -> Sequence[Row]:
    if not thread.is_alive():
        return rows[subject]
    found = f"no response within {limit.total_seconds():g} s"
    late = Row(subject, "connection", Status.FAILURE, found, "Check its address, the network and firewalls.")
    return [*rows[subject], late]


def _collect(subject: str, check: Check, rows: list[Row]) -> None:
    try:
        # One by one, so that the rows before an error are kept.
        for row in check():
            rows.append(row)  # noqa: PERF402
    except AggregatorError as error:
        rows.append(Row(subject, "connection", Status.FAILURE, str(error)))
    except Exception as error:  # noqa: BLE001 - a check must not hide the others
        # Its text may contain a secret.
        rows.append(Row(subject, "connection", Status.FAILURE, f"The check failed with {type(error).__name__}."))
