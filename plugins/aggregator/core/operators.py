"""Base of the last task of a run, which also runs after failed tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, TriggerRule

from aggregator.core.errors import PermanentError

if TYPE_CHECKING:
    from airflow.sdk import Context


class ClosingOperator(BaseOperator):
    """Base of last tasks that also run after failed tasks. The task fails if another task of its run failed.

    Airflow derives the state of a run from its last tasks only. If such a task succeeded after a failure, the run would
    be a success, and no alert would be sent.

    Args:
        trigger_rule: Airflow's trigger rule, which must let the task run after failures.
        **kwargs: Arguments of `BaseOperator`.
    """

    def __init__(self, *, trigger_rule: TriggerRule = TriggerRule.ALL_DONE, **kwargs: Any) -> None:
        super().__init__(trigger_rule=trigger_rule, **kwargs)

    def post_execute(self, context: Context, result: Any = None) -> None:
        """Fail if another task of the run failed. Airflow calls this after ``execute``, also after a deferral.

        Raises:
            PermanentError: A task failed. The text names the first one.
        """
        super().post_execute(context, result)
        if failed := failed_tasks(context):
            raise PermanentError(f"{describe_failed(failed)} Fix its cause, then clear the failed tasks of this run.")


def failed_tasks(context: Context) -> list[str]:
    """The failed task instances of a run, in the order of the DAG.

    Returns:
        Task ids; ids of mapped instances end with their map index in brackets. Tasks in state ``upstream_failed`` are
        left out.
    """
    # Airflow's types do not declare the attributes used here.
    ti: Any = context["ti"]
    dag: Any = context["dag"]
    order = {task.task_id: index for index, task in enumerate(dag.topological_sort())}
    instances = [
        (order.get(instance["task_id"], len(order)), instance["map_index"], instance["task_id"])
        for instance in ti.get_task_breadcrumbs(ti.dag_id, ti.run_id)
        if instance["state"] == "failed" and instance["task_id"] != ti.task_id
    ]
    return [f"{task_id}[{index}]" if index >= 0 else task_id for _, index, task_id in sorted(instances)]


def describe_failed(failed: list[str]) -> str:
    """A sentence that names the first failed task."""
    more = f" and {len(failed) - 1:,} more" if len(failed) > 1 else ""
    return f"Task {failed[0]}{more} of this run failed: see its log."
