"""How hooks send a request again by themselves; ``retry_policy`` is about whole tasks (spec: shared parts)."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from aggregator.core.errors import TransientError, retry_after

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenacity.wait import wait_base

LONGEST_WAIT = timedelta(seconds=60)
"""A longer ``Retry-After`` is not waited for here, where it would hold a worker, but by the task's retry."""


def retrying(
    *, attempts: int, wait: wait_base, sleep: Callable[[float], None], warn: Callable[..., object]
) -> Retrying:
    """Calls a function again as long as it raises `TransientError`, and raises its last error as it is.

    One that asks for more than `LONGEST_WAIT` is raised at once.

    Args:
        attempts: How often it is called at most.
        wait: Seconds between two calls, unless the error's ``retry_after`` asks for more.
        sleep: Waits that many seconds.
        warn: A logger's method for warnings; is told of every wait.

    Returns:
        What is to be called with the function.
    """

    def seconds_to_wait(state: RetryCallState) -> float:
        return max(wait(state), _requested(_failure(state)).total_seconds())

    def log_wait(state: RetryCallState) -> None:
        seconds = state.next_action.sleep if state.next_action else 0
        attempt = f"Attempt {state.attempt_number} of {attempts}"
        warn("%s %s, the next in %.1f s.", _failure(state), attempt, seconds)

    return Retrying(
        stop=stop_after_attempt(attempts),
        retry=retry_if_exception(_may_be_tried_here),
        wait=seconds_to_wait,
        sleep=sleep,
        before_sleep=log_wait,
        reraise=True,
    )


def _failure(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _requested(error: BaseException | None) -> timedelta:
    return (retry_after(error) if error else None) or timedelta(0)


def _may_be_tried_here(error: BaseException) -> bool:
    # Not `is_transient`: the execution timeout of the task is transient too, and has to end it here and now.
    return isinstance(error, TransientError) and _requested(error) <= LONGEST_WAIT
