"""Deadlines, measured from the time a run was due. ``docs/adr/0009-alerts.md`` has the reasons."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from airflow import __version__
from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import BaseDeadlineReference, DeadlineAlert

from aggregator.alerts.messages import late
from aggregator.alerts.notifier import notify
from aggregator.alerts.store import Alert, Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.orm import Session

_NEEDS_REQUIRED_KWARGS = tuple(int(part) for part in __version__.split(".")[:2]) < (3, 4)
"""Airflow 3.4 reads the parameters of ``_evaluate_with``, and warns about ``required_kwargs``."""

UNFINISHED = {"queued", "running"}
"""States of a run before its end."""


class DagRunDue(BaseDeadlineReference):
    """The time a scheduled run was due: the end of its data interval plus the schedule's offset.

    Manual runs and backfills have no deadline. Runs that the scheduler creates after their deadline have none either,
    for example after downtime. The freshness of their data is checked instead.
    """

    if _NEEDS_REQUIRED_KWARGS:
        required_kwargs = frozenset({"dag_id", "run_id"})

    def __init__(self, within: timedelta = timedelta()) -> None:
        """Create the reference.

        Args:
            within: Time from the reference to the deadline.
        """
        self.within = within

    @property
    def reference_name(self) -> str:
        """The name in the UI: "Must complete within an hour of the time it is due"."""
        return "the time it is due"

    def serialize_reference(self) -> dict[str, Any]:
        """The arguments of this reference, as the serialized DAG stores them."""
        return {**super().serialize_reference(), "within": self.within.total_seconds()}

    @classmethod
    def deserialize_reference(cls, reference_data: dict[str, Any]) -> Self:
        """Create a reference from the result of ``serialize_reference``."""
        return cls(timedelta(seconds=reference_data["within"]))

    def _evaluate_with(self, *, session: Session, dag_id: str, run_id: str) -> datetime | None:
        from airflow.models.dagrun import DagRun
        from airflow.utils.types import DagRunType
        from sqlalchemy import select

        due = session.scalar(
            select(DagRun.run_after).where(
                DagRun.dag_id == dag_id, DagRun.run_id == run_id, DagRun.run_type == DagRunType.SCHEDULED
            )
        )
        return due if due is not None and due + self.within > datetime.now(UTC) else None


async def notify_late(context: Mapping[str, Any]) -> None:
    """Raise an alert about a run that is unfinished after its deadline. Airflow's triggerer calls this.

    A finished run raises none. Airflow also calls this for failed runs (https://github.com/apache/airflow/issues/60927),
    which have an alert of their own.

    Args:
        context: ``dag_run`` as in the REST API, and ``deadline`` with its ``deadline_time``.
    """
    from asgiref.sync import sync_to_async

    if context["dag_run"]["state"] in UNFINISHED:
        # In a thread, because the triggerer must not block, and connections can be read in threads only.
        await sync_to_async(notify, thread_sensitive=False)(_late(context))


def _late(context: Mapping[str, Any]) -> Alert:
    run, deadline = context["dag_run"], _timestamp(context["deadline"]["deadline_time"])
    dag_id, run_id = run["dag_id"], run["dag_run_id"]
    start, end = (run.get(f"data_interval_{edge}") for edge in ("start", "end"))
    window = (_timestamp(start), _timestamp(end)) if start and end else (None, None)
    text = late(dag_id, run_id, _timestamp(run["run_after"]), run["state"], deadline, window)
    return Alert(Kind.LATE, dag_id, deadline, text, (run_id,))


def _timestamp(value: datetime | str) -> datetime:
    parsed = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return parsed.astimezone(UTC)


def alert_after(within: timedelta, *, note: str | None = None) -> DeadlineAlert:
    """The ``deadline`` argument of a DAG.

    Args:
        within: Time from when a run is due to its deadline.
        note: Text beside the deadline on the DAG's page.
    """
    reference = DagRunDue(within)
    return DeadlineAlert(reference=reference, interval=within, callback=AsyncCallback(notify_late), name=note)
