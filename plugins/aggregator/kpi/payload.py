"""What the requests of a run have in common, and their body."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from functools import cached_property
from typing import TYPE_CHECKING, Any

from aggregator.core.settings import KpiSettings
from aggregator.kpi import WORKER
from aggregator.kpi.trace_id import trace_id_of

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.sdk import Context

    from aggregator.kpi.registry import Kpi


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run, as one of its tasks sends its KPIs.

    Attributes:
        trace_id: Trace id of the run.
        run_time: Logical date of the run, or its ``run_after`` if it has none.
        retry_group: Same value for all tries of the task instance until it is cleared.
        resend: The param ``resend`` of the run.
    """

    trace_id: str
    run_time: datetime
    retry_group: str
    resend: bool

    @classmethod
    def of(cls, context: Context) -> Job:
        """Return the job of a running task."""
        run, ti = context["dag_run"], context["ti"]
        return cls(
            trace_id=trace_id_of(run),
            run_time=run.logical_date or run.run_after,
            # A clear raises max_tries, and a retry does not.
            retry_group=f"{ti.map_index}/{ti.max_tries}",
            resend=context["params"]["resend"],
        )

    def payload(self, kpi: Kpi) -> dict[str, Any]:
        """Return the body of a webhook call, the product's ``IndividualKPITrigger``.

        Raises:
            PermanentError: A setting is invalid.
        """
        return {
            "traceId": self.trace_id,
            "kpiId": kpi.id,
            "timestamp": f"{self.run_time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "kpiType": kpi.type,
            "metadata": {
                "schedulerWorker": WORKER,
                "environment": self._environment,
                "kpiName": kpi.name,
                "kpiDescription": kpi.description,
            },
        }

    @cached_property
    def _environment(self) -> str:
        return KpiSettings.load().environment
