"""What Airflow makes of the decision in ``aggregator.core.errors`` (spec: shared parts, retry policy)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import RetryDecision, RetryPolicy

from aggregator.core import failures
from aggregator.core.errors import is_transient, retry_after

if TYPE_CHECKING:
    from airflow.sdk import Context


class TransientOnlyRetryPolicy(RetryPolicy):
    """Retries transient errors within the task's ``retries``, and fails a task at once on a hard one.

    The delay is the one that the server requested, within limits, or else the task's own back-off. A worker that was
    killed never gets here: Airflow retries its task by itself. The reason of the failure is stored for the alert about
    it here, because Airflow calls nothing else between an error and the end of its task.
    """

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002 - Airflow counts the tries
        max_tries: int,  # noqa: ARG002
        context: Context | None = None,
    ) -> RetryDecision:
        """Decide whether Airflow shall run the task again.

        Args:
            exception: What the task ended with.
            try_number: Tries so far, this one included.
            max_tries: Tries the task has in all.
            context: Airflow's task context.

        Returns:
            The decision. Its reason is stored and shown in the UI, so it names the error's class and never its text: a
            database's message may hold a row's values.
        """
        if context is not None:
            failures.store(context, exception)
        name = type(exception).__name__
        if not is_transient(exception):
            return RetryDecision.fail(reason=f"{name} is a hard error: another try would fail as well")
        return RetryDecision.retry(delay=retry_after(exception), reason=f"{name} is transient")
