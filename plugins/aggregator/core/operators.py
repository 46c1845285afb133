"""The last task of a run, whose work has to be done whether the tasks before it failed or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, TriggerRule

from aggregator.core.errors import PermanentError

if TYPE_CHECKING:
    from airflow.sdk import Context


class ClosingOperator(BaseOperator):
    """Base of last tasks that run after failed tasks, too. It fails if a task of its run failed.

    Airflow judges a run by its last tasks alone. A last task that runs after failures and succeeds makes the run a
    success: no alert is sent, and a clear of failed tasks finds none.

    Args:
        **kwargs: As for every operator, without ``trigger_rule``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trigger_rule=TriggerRule.ALL_DONE, **kwargs)

    def post_execute(self, context: Context, result: Any = None) -> None:
        """Fail if a task of the run failed. Airflow calls this after ``execute``, also after a deferral.

        Args:
            context: Airflow's context of the task.
            result: Airflow 3.3 does not pass it.

        Raises:
            PermanentError: A task failed; the text names the first one.
        """
        super().post_execute(context, result)
        if failed := failed_tasks(context):
            msg = f"{describe_failed(failed)} Fix its cause, then clear the failed tasks of this run."
            raise PermanentError(msg)


def failed_tasks(context: Context) -> list[str]:
    """The task instances of a run that failed, in the order of the DAG.

    Args:
        context: Airflow's context of a task that runs after all others.

    Returns:
        Task ids, of mapped instances with their map index. Tasks that did not run because of them are left out.
    """
    # Airflow's types leave out what is used here.
    ti: Any = context["ti"]
    dag: Any = context["dag"]
    order = {task.task_id: position for position, task in enumerate(dag.topological_sort())}
    instances = [
        (order.get(instance["task_id"], len(order)), instance["map_index"], instance["task_id"])
        for instance in ti.get_task_breadcrumbs(ti.dag_id, ti.run_id)
        if instance["state"] == "failed" and instance["task_id"] != ti.task_id
    ]
    return [f"{task_id}[{index}]" if index >= 0 else task_id for _, index, task_id in sorted(instances)]


def describe_failed(failed: list[str]) -> str:
    """A sentence that names the first task that failed.

    Args:
        failed: As :func:`failed_tasks` returns them, at least one.
    """
    more = f" and {len(failed) - 1:,} more" if len(failed) > 1 else ""
    return f"Task {failed[0]}{more} of this run failed: see its log."
