"""Operators that start n8n workflows, for any DAG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context


class N8nWebhookOperator(BaseOperator):
    """Start an n8n workflow through its webhook. The task succeeds when n8n accepts the call.

    No DAG of this repository uses this operator; it is for your own (``docs/extend/write-a-dag.md``).

    No argument is a template. A payload with n8n's own ``{{ $json.x }}``, or with user input, is sent unchanged. So the
    operator can be mapped over data safely:

        N8nWebhookOperator.partial(
            task_id="notify",
            url="https://n8n.example.com/webhook/notify",
            map_index_template="{{ task.payload['id'] }}",
        ).expand(payload=list_customers.output)

    If a worker is killed while it waits for the response, the workflow may have been started. Airflow's next try sends
    the request again with the same ``Idempotency-Key``. n8n ignores this header, so a workflow that must not run twice
    has to drop keys it has already received (``docs/products/n8n.md``). ``kpi_dispatch`` uses job records instead.

    Args:
        url: URL of the webhook. The connection limits which hosts are called and which receive the key (`N8nHook`).
        payload: Sent as JSON.
        idempotency_key: Header ``Idempotency-Key``. The default consists of DAG, run, task, map index and the task's
            maximum number of tries: retries share it, and a clear creates a new one.
        conn_id: Airflow connection.
        **kwargs: Arguments of `BaseOperator`.
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

        Returns:
            ``status`` (HTTP status), ``requests`` (number of requests), ``retryCount`` (requests after the first one).

        Raises:
            N8nError: The workflow was not started, or its outcome is unknown. See `N8nHook.post`.
        """
        from aggregator.n8n.hook import N8nHook

        ti = context["ti"]
        # A clear raises max_tries, and a retry does not.
        default_key = f"{ti.dag_id}/{ti.run_id}/{ti.task_id}/{ti.map_index}/{ti.max_tries}"
        delivery = N8nHook(self.conn_id).post(
            self.url, self.payload, idempotency_key=self.idempotency_key or default_key
        )
        self.log.info("Webhook accepted: status=%d retry_count=%d", delivery.status, delivery.retry_count)
        return {"status": delivery.status, "requests": 1 + delivery.retry_count, "retryCount": delivery.retry_count}
