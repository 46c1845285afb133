"""Waits for n8n's reports about the KPIs of a job."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from aggregator.core.errors import TransientError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

log = logging.getLogger(__name__)

POLL_EVERY = 10.0
"""Seconds between two looks."""

TIMEOUT = timedelta(seconds=30)
"""The longest that one look may take."""


class KpiReportsTrigger(BaseTrigger):
    """Ends when n8n has reported about every KPI of a job that is awaited, or the time for that is over.

    It only looks, so it may run twice, and go on after a restart of the triggerer.

    Args:
        trace_id: The job.
        timeout_minutes: How long a report is awaited, from the request on.
    """

    def __init__(self, trace_id: str, timeout_minutes: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's
        self.trace_id = trace_id
        self.timeout_minutes = timeout_minutes

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What Airflow needs to make this trigger again."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "trace_id": self.trace_id,
            "timeout_minutes": self.timeout_minutes,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look again and again; a database that cannot be reached is asked again, too."""
        # A thread of its own: a look that hangs holds up no other trigger.
        look = sync_to_async(self._awaited, thread_sensitive=False)
        while True:
            try:
                if not await look():
                    break
            except TransientError as error:
                log.warning("%s Looking again in %g s.", error, POLL_EVERY)
            await asyncio.sleep(POLL_EVERY)
        yield TriggerEvent(self.trace_id)  # type: ignore[no-untyped-call]  # Airflow's

    def _awaited(self) -> int:
        # The triggerer imports this module into its event loop.
        from aggregator.kpi import jobs
        from aggregator.postgres.hook import PostgresTransactionHook

        hook = PostgresTransactionHook(jobs.CONNECTION)
        with hook.transaction(
            timeout=TIMEOUT, application_name=f"aggregator/{self.trace_id}", read_only=True
        ) as cursor:
            return jobs.awaited(cursor, self.trace_id, self.timeout_minutes)
