"""Trigger that waits for n8n's reports about the KPIs of a job."""

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

POLL_INTERVAL = 10.0
"""Seconds between two polls."""

POLL_TIMEOUT = timedelta(seconds=30)
"""Maximum duration of one poll."""


class KpiReportsTrigger(BaseTrigger):
    """Wait for the reports about the awaited KPIs of a job, or until ``timeout_minutes`` after the requests.

    The trigger only reads, so Airflow may run it twice, or again after a restart of the triggerer.
    """

    def __init__(self, trace_id: str, timeout_minutes: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's
        self.trace_id = trace_id
        self.timeout_minutes = timeout_minutes

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and the arguments with which Airflow creates this trigger again."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "trace_id": self.trace_id,
            "timeout_minutes": self.timeout_minutes,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until no report is awaited. Transient errors of the database do not end the wait."""
        # In a thread, so that a slow query does not block other triggers.
        poll = sync_to_async(self._awaited, thread_sensitive=False)
        while True:
            try:
                if not await poll():
                    break
            except TransientError as error:
                log.warning("%s Polling again in %g s.", error, POLL_INTERVAL)
            await asyncio.sleep(POLL_INTERVAL)
        yield TriggerEvent(self.trace_id)  # type: ignore[no-untyped-call]  # Airflow's

    def _awaited(self) -> int:
        # The triggerer imports this module into its event loop, so slow imports happen here.
        from aggregator.kpi import jobs
        from aggregator.postgres.hook import PostgresTransactionHook

        hook = PostgresTransactionHook(jobs.CONNECTION)
        with hook.transaction(
            timeout=POLL_TIMEOUT, application_name=f"aggregator/{self.trace_id}", read_only=True
        ) as cursor:
            return jobs.awaited(cursor, self.trace_id, self.timeout_minutes)
