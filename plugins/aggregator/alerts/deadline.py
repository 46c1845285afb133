"""Deadlines measured from when a run was due (spec: alerts; the reasons are in ``docs/adr/0009-alerts.md``)."""

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
"""States of a run that is not over."""


class DagRunDue(BaseDeadlineReference):
    """When a scheduled run was due: the end of its interval plus the schedule's offset.

    Runs that somebody starts, and backfills, have no deadline. Nor has a run that is created after its deadline, once a
    scheduler that was down is back, or at a first start: then the freshness of its data is what is watched.
    """

    if _NEEDS_REQUIRED_KWARGS:
        required_kwargs = frozenset({"dag_id", "run_id"})

    def __init__(self, within: timedelta = timedelta()) -> None:
        """Describe the reference.

        Args:
            within: The deadline's interval, to know when it would have passed.
        """
        self.within = within

    @property
    def reference_name(self) -> str:
        """How the UI calls it: "Must complete within an hour of the time it is due"."""
        return "the time it is due"

    def serialize_reference(self) -> dict[str, Any]:
        """The arguments of this reference, for the serialized DAG."""
        return {**super().serialize_reference(), "within": self.within.total_seconds()}

    @classmethod
    def deserialize_reference(cls, reference_data: dict[str, Any]) -> Self:
        """The reference that ``serialize_reference`` described."""
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
    """Tell that a run is at work after its deadline; Airflow's triggerer calls this.

    A run that has failed was told of already: Airflow keeps its deadline all the same (issue 60927). One that has
    succeeded meanwhile needs nobody.

    Args:
        context: ``dag_run``, as the REST API shows it, and ``deadline`` with its ``deadline_time``.
    """
    from asgiref.sync import sync_to_async

    if context["dag_run"]["state"] in UNFINISHED:
        # Its own thread: whatever else the triggerer does goes on. It is the one in which Airflow can be asked for
        # connections.
        await sync_to_async(notify, thread_sensitive=False)(_late(context))


def _late(context: Mapping[str, Any]) -> Alert:
    run, deadline = context["dag_run"], _timestamp(context["deadline"]["deadline_time"])
    dag_id, run_id = run["dag_id"], run["dag_run_id"]
    return Alert(
        Kind.LATE,
        dag_id,
        deadline,
        late(dag_id, run_id, _timestamp(run["run_after"]), run["state"], deadline),
        (run_id,),
    )


def _timestamp(value: datetime | str) -> datetime:
    parsed = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return parsed.astimezone(UTC)


def alert_after(within: timedelta, *, note: str | None = None) -> DeadlineAlert:
    """What a DAG is given as its ``deadline``.

    Args:
        within: The longest that a run may take, from when it is due.
        note: Shown beside the deadline on the DAG's page.
    """
    reference = DagRunDue(within)
    return DeadlineAlert(reference=reference, interval=within, callback=AsyncCallback(notify_late), name=note)
