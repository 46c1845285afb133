"""Why a task has failed: kept as an XCom of the task, for the alert about its run (spec: alerts and health)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from aggregator.core.errors import WrongParamsError, first_sentence, is_transient

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import DAG, Context

log = logging.getLogger(__name__)

KEY = "error"
"""Key of the XCom. Airflow deletes it when the task starts its next try."""

_FAILED = "failed"
_MANUAL = "manual"
_NOT_MAPPED = -1


@dataclass(frozen=True)
class Failure:
    """The first failed task of a run.

    Attributes:
        task_id: The task.
        instances: How many instances of a mapped task have failed.
        reason: First sentence of the error; None where none was stored.
        read: Whether the reason could be looked up. If so, a missing one means that the process was killed.
        transient: Whether the error was one that is retried.
        tries: Number of the last try.
        wrong_params: Whether the params of the run were wrong.
    """

    task_id: str
    instances: int = 1
    reason: str | None = None
    transient: bool = False
    tries: int = 1
    wrong_params: bool = False
    read: bool = True

    @classmethod
    def of(cls, task_id: str, instances: int, stored: Mapping[str, Any] | None) -> Self:
        """The failure of a task.

        Args:
            task_id: The task.
            instances: How many of its instances have failed.
            stored: What :func:`store` has stored; None if there is nothing.
        """
        return cls(task_id, instances, **(stored or {}))


def store(context: Context, exception: BaseException) -> None:
    """Store why a try of a task has failed. Nothing depends on it, so an error in here is logged and nothing else.

    Args:
        context: Airflow's task context.
        exception: What ended the try.
    """
    try:
        task = context["ti"]
        task.xcom_push(key=KEY, value=describe(exception, task.try_number))
    except Exception as error:  # noqa: BLE001 - a hard error would be retried
        log.warning("The reason of this failure could not be stored for its alert: %s", type(error).__name__)


def describe(exception: BaseException, tries: int) -> dict[str, Any]:
    """What :func:`store` stores.

    Args:
        exception: What ended the try.
        tries: Its number.
    """
    return {
        "reason": first_sentence(exception),
        "transient": is_transient(exception),
        "tries": tries,
        "wrong_params": isinstance(exception, WrongParamsError),
    }


def of_run(context: Context) -> Failure | None:
    """The first failed task of a run, read in the run's callback: one that failed, and none before it.

    Args:
        context: Airflow's context of the callback.

    Returns:
        The failure; None if the task is not part of the DAG any more.
    """
    task = context.get("ti")
    if task is None:
        return None
    try:
        states = task.get_task_states(dag_id=task.dag_id, run_ids=[task.run_id]).get(task.run_id, {})
        task_id, indexes = _first_failed(context["dag"], states) or (task.task_id, [_index(task)])
        stored = task.xcom_pull(task_ids=task_id, key=KEY, map_indexes=indexes[0])
    except Exception as error:  # noqa: BLE001 - the alert has to go out all the same
        log.debug("Airflow could not be asked for the reason of the failure: %s", type(error).__name__)
        return Failure(task.task_id, read=False)
    return Failure.of(task_id, len(indexes), stored)


def _first_failed(dag: DAG, states: Mapping[str, str]) -> tuple[str, Sequence[int]] | None:
    """The id of the task, and the map indexes of its failed instances; a plain task has the index -1."""
    failed: dict[str, list[int]] = {}
    for name, state in states.items():
        if state != _FAILED:
            continue
        # Airflow names an instance of a mapped task so.
        task_id, _, index = (name, "", _NOT_MAPPED) if dag.has_task(name) else name.rpartition("_")
        failed.setdefault(task_id, []).append(int(index))
    for task_id in dag.task_ids:
        if task_id in failed and not failed.keys() & dag.get_task(task_id).get_flat_relative_ids(upstream=True):
            return task_id, sorted(failed[task_id])
    return None


def _index(task: Any) -> int:
    return _NOT_MAPPED if task.map_index is None else task.map_index


def has_wrong_params(failure: Failure | None, run_type: str) -> bool:
    """Whether a run has failed because whoever started it gave wrong params: that is for no one else.

    Args:
        failure: Of the run.
        run_type: As Airflow has it.
    """
    return failure is not None and failure.wrong_params and run_type == _MANUAL
