"""Retries of single requests inside a hook; ``retry_policy`` retries whole tasks (spec: shared parts)."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from tenacity import RetryCallState, retry_if_exception, stop_after_attempt

from aggregator.core.errors import TransientError, retry_after

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenacity.wait import wait_base

    Errors = type[BaseException] | tuple[type[BaseException], ...]

LONGEST_WAIT = timedelta(seconds=60)
"""Longest wait between two requests. A longer ``Retry-After`` is left to the task's retry, which frees the worker."""


def retry_options(
    *,
    attempts: int,
    wait: wait_base,
    sleep: Callable[[float], object],
    warn: Callable[..., object],
    retried: Errors = TransientError,
) -> dict[str, Any]:
    """Arguments of tenacity's `Retrying` or `AsyncRetrying`, which raises the last error unchanged.

    An error that requests a delay longer than `LONGEST_WAIT` is raised at once.

    Args:
        attempts: Maximum number of calls.
        wait: Seconds between two calls, unless the error's ``retry_after`` is longer.
        sleep: Sleeps for that many seconds; a coroutine function for `AsyncRetrying`.
        warn: A logger's method for warnings; called before every wait.
        retried: Errors that are retried.
    """

    def seconds_to_wait(state: RetryCallState) -> float:
        return max(wait(state), _requested(_failure(state)).total_seconds())

    def log_wait(state: RetryCallState) -> None:
        seconds = state.next_action.sleep if state.next_action else 0
        warn("%s attempt=%d attempts=%d wait_seconds=%.1f", _failure(state), state.attempt_number, attempts, seconds)

    return {
        "sleep": sleep,
        "stop": stop_after_attempt(attempts),
        # Not `is_transient`: a task's execution timeout is transient, too, and must end the task.
        "retry": retry_if_exception(lambda e: isinstance(e, retried) and _requested(e) <= LONGEST_WAIT),
        "wait": seconds_to_wait,
        "before_sleep": log_wait,
        "reraise": True,
    }


def _failure(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _requested(error: BaseException | None) -> timedelta:
    return (retry_after(error) if error else None) or timedelta(0)
