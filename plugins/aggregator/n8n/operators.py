"""Starts n8n workflows from any DAG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context


class N8nWebhookOperator(BaseOperator):
    """Start an n8n workflow through its webhook, and end when n8n has accepted the call.

    No argument is a template: a payload with n8n's own ``{{ $json.x }}``, or with what somebody typed in elsewhere,
    goes out as it is. That makes it safe to map over data:

        N8nWebhookOperator.partial(
            task_id="notify", url="https://n8n.example.com/webhook/notify", map_index_template="{{ task.payload.id }}"
        ).expand(payload=list_customers.output)

    If a worker is killed while it waits for the response, the workflow may have been started. Airflow's next try sends
    the request again under the same ``Idempotency-Key``. n8n ignores that header: a workflow that must not run twice
    has to drop keys that it has seen (``docs/products/n8n.md``). ``kpi_dispatch`` keeps job records instead.

    Args:
        url: The webhook's; what may be called, and what is sent the key, is the connection's business (`N8nHook`).
        payload: Sent as JSON.
        idempotency_key: Header ``Idempotency-Key``. By default made of DAG, run, task, map index and the task's limit
            of tries: retries share it, and a clear makes a new one.
        conn_id: Airflow connection, as `N8nHook` has it.
        **kwargs: As for every operator.
    """

    template_fields: Sequence[str] = ()
    ui_color = "#ead7e8"

    def __init__(
        self,
        *,
        url: str,
        payload: Mapping[str, Any],
        idempotency_key: str | None = None,
        conn_id: str = "n8n",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.url = url
        self.payload = payload
        self.idempotency_key = idempotency_key
        self.conn_id = conn_id

    def execute(self, context: Context) -> dict[str, int]:
        """Call the webhook.

        Args:
            context: Airflow's task context.

        Returns:
            ``status``, n8n's HTTP status, how many ``requests`` were sent, and ``retryCount``, how many of them
            followed the first one.

        Raises:
            N8nError: The workflow was not started, or nobody knows; as `N8nHook.post` raises it.
        """
        from aggregator.n8n.hook import N8nHook

        ti = context["ti"]
        # A clear raises the limit of tries, retries keep it.
        own_key = f"{ti.dag_id}/{ti.run_id}/{ti.task_id}/{ti.map_index}/{ti.max_tries}"
        delivery = N8nHook(self.conn_id).post(self.url, self.payload, idempotency_key=self.idempotency_key or own_key)
        self.log.info("n8n accepted it: status=%d retry_count=%d", delivery.status, delivery.retry_count)
        retry_count = delivery.retry_count
        return {"status": delivery.status, "requests": 1 + retry_count, "retryCount": retry_count}
