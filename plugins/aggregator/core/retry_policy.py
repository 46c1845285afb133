"""Retry decisions for Airflow tasks, from the error classes (spec: shared parts, retry policy)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import RetryDecision, RetryPolicy

from aggregator.core import failures
from aggregator.core.errors import is_transient, retry_after

if TYPE_CHECKING:
    from airflow.sdk import Context


class TransientOnlyRetryPolicy(RetryPolicy):
    """Retries a task after a transient error, within its ``retries``. A permanent error fails the task at once.

    The delay is the one that the server requested, within limits, or else the task's own backoff. If a worker was
    killed, Airflow does not call the policy and retries the task. The policy also stores the reason of the failure for
    the alert, because Airflow has no other hook between an error and the end of a task.
    """

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002 - Airflow counts the tries
        max_tries: int,  # noqa: ARG002
        context: Context | None = None,
    ) -> RetryDecision:
        """Decide whether Airflow retries the task.

        Returns:
            The decision. Airflow stores its reason and shows it in the UI. It contains the error's class and not its
            text, because a database's message may contain the values of a row.
        """
        if context is not None:
            failures.store(context, exception)
        name = type(exception).__name__
        if not is_transient(exception):
            return RetryDecision.fail(reason=f"{name} is a permanent error: a retry would fail, too")
        return RetryDecision.retry(delay=retry_after(exception), reason=f"{name} is a transient error")
