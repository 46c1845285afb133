"""Retries of requests inside a hook."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.exceptions import AirflowTaskTimeout
from tenacity import Retrying, wait_exponential, wait_none

from aggregator.core.errors import PermanentError, TransientError, parse_retry_after
from aggregator.core.retrying import LONGEST_WAIT, retry_options

if TYPE_CHECKING:
    from time_machine import TimeMachineFixture

log = logging.getLogger(__name__)

BUSY = TransientError("busy")


class Calls:
    """A function with a given result or error per call, and the seconds waited between the calls."""

    def __init__(self) -> None:
        self.made = 0
        self.slept: list[float] = []

    def make(self, *ends: BaseException | str, attempts: int = 4, wait: Any = None) -> str:
        remaining = iter(ends)

        def call() -> str:
            self.made += 1
            end = next(remaining)
            if isinstance(end, BaseException):
                raise end
            return end

        options = retry_options(attempts=attempts, wait=wait or wait_none(), sleep=self.slept.append, warn=log.warning)
        return Retrying(**options)(call)


@pytest.fixture
def calls() -> Calls:
    return Calls()


def test_transient_errors_are_retried(calls: Calls) -> None:
    assert calls.make(BUSY, BUSY, "done", wait=wait_exponential(multiplier=1)) == "done"
    assert calls.slept == [1, 2]


def test_last_error_is_raised_unchanged(calls: Calls) -> None:
    last = TransientError("still busy")
    with pytest.raises(TransientError) as raised:
        calls.make(BUSY, last, attempts=2)
    assert raised.value is last
    assert (calls.made, len(calls.slept)) == (2, 1)


@pytest.mark.parametrize("end", [PermanentError("wrong"), ValueError(), AirflowTaskTimeout(), KeyboardInterrupt()])
def test_other_errors_are_not_retried(calls: Calls, end: BaseException) -> None:
    with pytest.raises(type(end)):
        calls.make(end, "never")
    assert calls.slept == []


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 3),
        ("7", 7),
        ("2", 3),
        ("0", 3),
        ("60", 60),
        ("Sun, 15 Nov 2026 12:00:40 GMT", 40),
        ("Sun, 15 Nov 2026 11:00:00 GMT", 3),
        ("-5", 3),
        ("soon", 3),
        ("9" * 5000, 3),
    ],
)
def test_wait_is_the_longer_of_the_backoff_and_the_requested_delay(
    calls: Calls, time_machine: TimeMachineFixture, header: str | None, seconds: int
) -> None:
    time_machine.move_to("2026-11-15T12:00:00+00:00", tick=False)
    error = TransientError("busy", retry_after=parse_retry_after(header))
    calls.make(error, "done", wait=lambda _: 3)
    assert calls.slept == [seconds]


@pytest.mark.parametrize("requested", [LONGEST_WAIT + timedelta(seconds=1), timedelta(days=10_000)])
def test_longer_delay_is_left_to_the_task(calls: Calls, requested: timedelta) -> None:
    error = TransientError("busy", retry_after=requested)
    with pytest.raises(TransientError) as raised:
        calls.make(error, "never")
    assert raised.value.retry_after == requested
    assert calls.slept == []


def test_every_wait_is_logged(calls: Calls, caplog: pytest.LogCaptureFixture) -> None:
    calls.make(BUSY, "done", wait=lambda _: 1.25)
    assert caplog.messages == ["busy attempt=1 attempts=4 wait_seconds=1.2"]
