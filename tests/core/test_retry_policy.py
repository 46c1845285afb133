"""Transient errors are retried, hard ones are not."""

from __future__ import annotations

from datetime import timedelta
from inspect import signature
from types import SimpleNamespace

import pytest
from airflow.sdk import DAG, BaseOperator
from airflow.sdk.definitions.retry_policy import RetryAction
from airflow.sdk.execution_time.task_runner import _handle_current_task_failed
from airflow.serialization.serialized_objects import DagSerialization

from aggregator.core.errors import LONGEST_RETRY_AFTER, PermanentError, TransientError
from aggregator.core.retry_policy import TransientOnlyRetryPolicy


def test_a_hard_error_is_not_retried() -> None:
    decision = TransientOnlyRetryPolicy().evaluate(PermanentError("hire 17 is odd"), try_number=1, max_tries=3)
    assert decision.action is RetryAction.FAIL
    assert decision.reason
    assert "PermanentError" in decision.reason


def test_the_stored_reason_does_not_repeat_the_message() -> None:
    for exception in (ValueError("row 42"), TimeoutError("row 42")):
        assert "42" not in str(TransientOnlyRetryPolicy().evaluate(exception, try_number=1, max_tries=3))


def test_a_transient_error_is_retried_with_the_tasks_own_back_off() -> None:
    decision = TransientOnlyRetryPolicy().evaluate(TimeoutError(), try_number=1, max_tries=3)
    assert decision.action is RetryAction.RETRY
    assert decision.retry_delay is None


@pytest.mark.parametrize(
    ("asked", "delay"),
    [
        (timedelta(seconds=30), timedelta(seconds=30)),
        (timedelta(days=1), LONGEST_RETRY_AFTER),
        (timedelta(0), None),
    ],
)
def test_the_other_side_may_ask_for_a_delay(asked: timedelta, delay: timedelta | None) -> None:
    error = RuntimeError("load failed")
    error.__cause__ = TransientError("busy", retry_after=asked)
    decision = TransientOnlyRetryPolicy().evaluate(error, try_number=1, max_tries=3)
    assert decision.action is RetryAction.RETRY
    assert decision.retry_delay == delay


def test_a_dag_with_it_in_the_defaults_can_be_serialised() -> None:
    with DAG("policy", schedule=None, default_args={"retry_policy": TransientOnlyRetryPolicy()}) as dag:
        BaseOperator(task_id="plain")
        BaseOperator.partial(task_id="mapped").expand(doc=["a", "b"])
    restored = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert all(restored.get_task(task_id).has_retry_policy for task_id in ("plain", "mapped"))


@pytest.mark.parametrize(
    ("exception", "state"), [(PermanentError("bad"), "failed"), (TransientError("later"), "up_for_retry")]
)
def test_airflow_obeys_it(exception: Exception, state: str) -> None:
    # Airflow's own decision function: running a task for it would need a database and a scheduler.
    task_instance = SimpleNamespace(
        task=BaseOperator(task_id="task", retry_policy=TransientOnlyRetryPolicy()),
        try_number=1,
        rendered_map_index=None,
        stats_tags={},
        _failure_metrics_emitted=True,
        _ti_context_from_server=SimpleNamespace(max_tries=3, should_retry=True),
    )
    log = SimpleNamespace(info=lambda *_, **__: None, exception=pytest.fail)
    # Airflow 3.4 passes the task's context, too.
    context = [{}] * (len(signature(_handle_current_task_failed).parameters) - 3)
    _, decided = _handle_current_task_failed(task_instance, exception, log, *context)
    assert decided.value == state
