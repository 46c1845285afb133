"""Airflow retries tasks after transient errors and not after permanent errors."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
from airflow.sdk import DAG, BaseOperator
from airflow.sdk.definitions.retry_policy import RetryAction
from airflow.serialization.serialized_objects import DagSerialization
from airflow.utils.db import initdb

from aggregator.core.errors import LONGEST_RETRY_AFTER, PermanentError, TransientError
from aggregator.core.retry_policy import TransientOnlyRetryPolicy
from tests.bundles import use_bundle

if TYPE_CHECKING:
    from pathlib import Path


def test_permanent_error_fails_the_task() -> None:
    decision = TransientOnlyRetryPolicy().evaluate(PermanentError("hire 17 is odd"), try_number=1, max_tries=3)
    assert decision.action is RetryAction.FAIL
    assert decision.reason
    assert "PermanentError" in decision.reason


def test_reason_does_not_contain_the_text_of_the_error() -> None:
    for exception in (ValueError("row 42"), TimeoutError("row 42")):
        assert "42" not in str(TransientOnlyRetryPolicy().evaluate(exception, try_number=1, max_tries=3))


def test_transient_error_is_retried_with_the_backoff_of_the_task() -> None:
    decision = TransientOnlyRetryPolicy().evaluate(TimeoutError(), try_number=1, max_tries=3)
    assert decision.action is RetryAction.RETRY
    assert decision.retry_delay is None


@pytest.mark.parametrize(
    ("requested", "delay"),
    [
        (timedelta(seconds=30), timedelta(seconds=30)),
        (timedelta(days=1), LONGEST_RETRY_AFTER),
        (timedelta(0), None),
    ],
)
def test_delay_is_the_requested_one_within_limits(requested: timedelta, delay: timedelta | None) -> None:
    error = RuntimeError("load failed")
    error.__cause__ = TransientError("busy", retry_after=requested)
    decision = TransientOnlyRetryPolicy().evaluate(error, try_number=1, max_tries=3)
    assert decision.action is RetryAction.RETRY
    assert decision.retry_delay == delay


def test_dag_with_the_policy_in_its_defaults_can_be_serialized() -> None:
    with DAG("policy", schedule=None, default_args={"retry_policy": TransientOnlyRetryPolicy()}) as dag:
        BaseOperator(task_id="plain")
        BaseOperator.partial(task_id="mapped").expand(doc=["a", "b"])
    restored = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert all(restored.get_task(task_id).has_retry_policy for task_id in ("plain", "mapped"))


DAG_FILE = """
from datetime import timedelta
from airflow.sdk import DAG, task
from aggregator.core.errors import PermanentError, TransientError
from aggregator.core.retry_policy import TransientOnlyRetryPolicy

arguments = {"retries": 1, "retry_delay": timedelta(0), "retry_policy": TransientOnlyRetryPolicy()}
with DAG("retries", schedule=None, default_args=arguments):
    @task
    def permanent():
        raise PermanentError("bad")
    @task
    def transient():
        raise TransientError("later")
    permanent()
    transient()
"""


@pytest.mark.slow
def test_run_retries_only_the_task_with_a_transient_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    initdb()
    use_bundle(monkeypatch, "retries", tmp_path)
    (tmp_path / "retries.py").write_text(DAG_FILE)
    DagBundlesManager().sync_bundles_to_db()  # type: ignore[no-untyped-call]  # Airflow's
    bag = BundleDagBag(tmp_path, bundle_path=tmp_path, bundle_name="retries")
    sync_bag_to_db(bag, "retries", None)

    run = bag.dags["retries"].test()

    tries = {ti.task_id: (ti.state, ti.try_number) for ti in run.get_task_instances()}
    assert tries == {"permanent": ("failed", 1), "transient": ("failed", 2)}
