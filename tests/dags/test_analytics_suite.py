"""What each DAG of the analytics suite has to have beside what all DAGs have (spec: analytics suite)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aggregator import dead_letters
from aggregator.analytics import MESSAGES, skip_while_paused
from aggregator.defaults import Owner

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag


@pytest.fixture
def suite(dag_bag: DagBag) -> list[Any]:
    """The DAGs of the suite; not empty."""
    found = [dag for dag in dag_bag.dags.values() if dag.owner == Owner.ANALYTICS]
    assert found
    return found


def test_each_is_named_by_a_message_that_its_page_tells(suite: list[Any]) -> None:
    assert {dag.dag_id for dag in suite} <= set(MESSAGES)
    assert [dag.dag_id for dag in suite if f"`{MESSAGES[dag.dag_id]}`" not in dag.doc_md] == []


def test_every_task_heeds_the_pause_and_leaves_letters(suite: list[Any]) -> None:
    for dag in suite:
        assert dag.on_failure_callback is dead_letters.record, dag.dag_id
        for task in dag.tasks:
            assert task._pre_execute_hook is skip_while_paused, task.task_id
            assert task.on_failure_callback == [dead_letters.record], task.task_id
            assert task.on_success_callback == [dead_letters.settle], task.task_id
