"""Store why a task failed in an XCom of the task, for the alert about its run (spec: alerts and health)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aggregator.core.errors import WrongParamsError, first_sentence, is_transient

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import DAG, Context

log = logging.getLogger(__name__)

KEY = "error"
"""Key of the XCom. Airflow deletes the XCom when the next try starts."""

_NOT_MAPPED = -1


@dataclass(frozen=True)
class Failure:
    """The first failed task of a run.

    Attributes:
        task_id: The task.
        instances: Number of failed instances of a mapped task.
        reason: First sentence of the error; None if no reason was stored.
        transient: Whether the error was transient.
        tries: Number of the last try.
        wrong_params: Whether the params of the run were wrong.
        read: Whether the stored reason could be read. If True, a missing reason means that the process was killed.
    """

    task_id: str
    instances: int = 1
    reason: str | None = None
    transient: bool = False
    tries: int = 1
    wrong_params: bool = False
    read: bool = True


def store(context: Context, exception: BaseException) -> None:
    """Store why a try failed. An error in this function is only logged: it must not change the retry decision."""
    try:
        task = context["ti"]
        task.xcom_push(key=KEY, value=describe(exception, task.try_number))
    except Exception as error:  # noqa: BLE001 - Airflow would retry a permanent error
        log.warning(
            "The reason of this failure was not stored (%s). The alert will not contain it.", type(error).__name__
        )


def describe(exception: BaseException, tries: int) -> dict[str, Any]:
    """The value that :func:`store` pushes."""
    return {
        "reason": first_sentence(exception),
        "transient": is_transient(exception),
        "tries": tries,
        "wrong_params": isinstance(exception, WrongParamsError),
    }


def of_run(context: Context) -> Failure | None:
    """The first failed task of a run, without a failed upstream task; None if it is no longer part of the DAG."""
    task = context.get("ti")
    if task is None:
        return None
    try:
        states = task.get_task_states(dag_id=task.dag_id, run_ids=[task.run_id]).get(task.run_id, {})
        task_id, indexes = _first_failed(context["dag"], states) or (
            task.task_id,
            [_NOT_MAPPED if task.map_index is None else task.map_index],
        )
        stored = task.xcom_pull(task_ids=task_id, key=KEY, map_indexes=indexes[0])
    except Exception as error:  # noqa: BLE001 - the alert must be sent anyway
        log.debug("The reason of the failure could not be read: %s", type(error).__name__)
        return Failure(task.task_id, read=False)
    return Failure(task_id, len(indexes), **(stored or {}))


def _first_failed(dag: DAG, states: Mapping[str, str]) -> tuple[str, Sequence[int]] | None:
    """Id of the task, and map indexes of its failed instances; -1 for a task that is not mapped."""
    failed: dict[str, list[int]] = {}
    for name, state in states.items():
        if state != "failed":
            continue
        # The name of a mapped instance is ``<task_id>_<map index>``.
        task_id, _, index = (name, "", _NOT_MAPPED) if dag.has_task(name) else name.rpartition("_")
        failed.setdefault(task_id, []).append(int(index))
    for task_id in dag.task_ids:
        if task_id in failed and not failed.keys() & dag.get_task(task_id).get_flat_relative_ids(upstream=True):
            return task_id, sorted(failed[task_id])
    return None


def has_wrong_params(failure: Failure | None, run_type: str) -> bool:
    """Whether a manual run failed because of wrong params. Such a run raises no alert."""
    return failure is not None and failure.wrong_params and run_type == "manual"
