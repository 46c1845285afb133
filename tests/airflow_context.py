"""The parts of Airflow's task context that the operators use."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import BaseOperator


def context(
    task: BaseOperator, start: datetime, end: datetime, *, failed_tasks: Sequence[str] = (), **results: Any
) -> Any:
    """The context of a scheduled run whose data interval is ``[start, end)``.

    Args:
        task: The running task.
        start: Start of the data interval.
        end: End of the data interval.
        failed_tasks: Ids of failed tasks of the run.
        results: Results of upstream tasks, by task id.
    """
    run = SimpleNamespace(
        dag_id=task.dag_id,
        run_id=f"scheduled__{end.isoformat()}",
        run_after=end + timedelta(hours=1),
        logical_date=start,
        data_interval_start=start,
        data_interval_end=end,
        clear_number=0,
    )
    failed = [{"task_id": task_id, "map_index": -1, "state": "failed"} for task_id in failed_tasks]
    instance = SimpleNamespace(
        task=task,
        dag_id=task.dag_id,
        task_id=task.task_id,
        run_id=run.run_id,
        start_date=datetime.now(UTC),
        try_number=1,
        xcom_pull=lambda task_ids, **_: results[task_ids],
        xcom_push=results.__setitem__,
        get_task_breadcrumbs=lambda *_: failed,
    )
    return {"ti": instance, "task": task, "dag": task.dag, "dag_run": run}
