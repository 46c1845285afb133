"""A rejected way for ``kpi_dispatch`` (ADR 8): instances that start in the triggerer, and see a worker only to fail.

`fan_out` copies this file into a folder of DAGs.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowSkipException
from airflow.triggers.base import BaseTrigger, StartTriggerArgs, TaskSkippedEvent, TaskSuccessEvent, TriggerEvent
from asgiref.sync import sync_to_async

from aggregator.core.catalog import Owner
from aggregator.core.errors import AggregatorError, PermanentError, TransientError
from aggregator.kpi.operators import (
    CreateKpiJobOperator,
    FinalizeKpiJobOperator,
    ReadKpiRegistryOperator,
    TriggerKpiOperator,
)
from aggregator.wiring import default_args

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow.sdk import Context

DAG_ID = "kpi_dispatch_from_trigger"


class SendKpiTrigger(BaseTrigger):
    """Sends the KPI of a task instance in a thread of the triggerer."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Every instance of a mapped task gets the same arguments; which KPI it sends follows from its index."""
        return f"dev.bench.{DAG_ID}.SendKpiTrigger", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Send it, end the instance here if that went well, and leave the rest to a worker."""
        yield await sync_to_async(self._send, thread_sensitive=False)()

    def _send(self) -> TriggerEvent:
        instance: Any = self.task_instance
        batches = instance.xcom_pull("read_registry", map_indexes=-1)
        batch, index = divmod(instance.map_index, len(batches[0]))
        task = TriggerKpiOperator(task_id=instance.task_id, batch=batches[batch], index=index)
        instance.start_date, instance.max_tries = datetime.now(UTC), 0  # of a trigger's instance, Airflow sets neither
        context: Any = {**instance.get_template_context(), "task": task}
        try:
            result = task.execute(context)
        except AirflowSkipException:
            return TaskSkippedEvent()
        except AggregatorError as error:
            failure = {"error": str(error), "transient": isinstance(error, TransientError)}
            return TriggerEvent(failure)  # type: ignore[no-untyped-call]  # Airflow's
        return TaskSuccessEvent(xcoms={"return_value": result})


class TriggerKpiFromTriggerOperator(TriggerKpiOperator):
    """As the operator of ``kpi_dispatch``, but started by the triggerer."""

    start_from_trigger = True
    start_trigger_args = StartTriggerArgs(trigger_cls=f"dev.bench.{DAG_ID}.SendKpiTrigger", next_method="fail")

    def fail(self, context: Context, event: dict[str, Any]) -> NoReturn:  # noqa: ARG002 - Airflow passes it
        """Fail on a worker, where the policy of retries is asked."""
        raise (TransientError if event["transient"] else PermanentError)(event["error"])


with DAG(
    DAG_ID,
    schedule=None,
    params={"resend": False, "kpis": []},
    default_args=default_args(Owner.KPI, retries=2),
):
    registry = ReadKpiRegistryOperator(task_id="read_registry")
    job = CreateKpiJobOperator(task_id="create_job")
    kpis = TriggerKpiFromTriggerOperator.partial(task_id="trigger_kpi", map_index_template="{{ task.kpi_id }}").expand(
        batch=registry.output, index=job.output
    )
    finalized = FinalizeKpiJobOperator(task_id="settle_job")
    registry >> job >> kpis >> finalized
