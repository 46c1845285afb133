"""Retries of single requests inside a hook; ``retry_policy`` retries whole tasks (spec: shared parts)."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from aggregator.core.errors import TransientError, retry_after

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenacity.wait import wait_base

LONGEST_WAIT = timedelta(seconds=60)
"""Longest wait between two requests. A longer ``Retry-After`` is left to the task's retry, which frees the worker."""


def retrying(
    *, attempts: int, wait: wait_base, sleep: Callable[[float], None], warn: Callable[..., object]
) -> Retrying:
    """Create a caller that repeats a function while it raises `TransientError`. It raises the last error unchanged.

    An error that requests a delay longer than `LONGEST_WAIT` is raised at once.

    Args:
        attempts: Maximum number of calls.
        wait: Seconds between two calls, unless the error's ``retry_after`` is longer.
        sleep: Sleeps for that many seconds.
        warn: A logger's method for warnings; called before every wait.

    Returns:
        The caller; pass it the function.
    """

    def seconds_to_wait(state: RetryCallState) -> float:
        return max(wait(state), _requested(_failure(state)).total_seconds())

    def log_wait(state: RetryCallState) -> None:
        seconds = state.next_action.sleep if state.next_action else 0
        warn("%s attempt=%d attempts=%d wait_seconds=%.1f", _failure(state), state.attempt_number, attempts, seconds)

    return Retrying(
        stop=stop_after_attempt(attempts),
        retry=retry_if_exception(_is_retried_here),
        wait=seconds_to_wait,
        sleep=sleep,
        before_sleep=log_wait,
        reraise=True,
    )


def _failure(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _requested(error: BaseException | None) -> timedelta:
    return (retry_after(error) if error else None) or timedelta(0)


def _is_retried_here(error: BaseException) -> bool:
    # Not `is_transient`: a task's execution timeout is transient, too, and must end the task.
    return isinstance(error, TransientError) and _requested(error) <= LONGEST_WAIT
