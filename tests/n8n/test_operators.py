"""N8nWebhookOperator: payload unchanged, one request per try, one key for all retries."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG

from aggregator.core.metrics import counts
from aggregator.n8n.errors import N8nRefusedError
from aggregator.n8n.operators import N8nWebhookOperator
from dev.n8n.app import Workflow
from dev.n8n.fixtures import KEY

if TYPE_CHECKING:
    from dev.n8n.client import N8nControl

EVIL = "{{ ti.xcom_pull('secret') }} {{ $json.x }} {% raw %}"


@pytest.fixture
def url(n8n: N8nControl, monkeypatch: pytest.MonkeyPatch) -> str:
    connection = {"conn_type": "http", "password": KEY, "extra": {"allowed_origins": [n8n.url]}}
    monkeypatch.setenv("AIRFLOW_CONN_N8N", json.dumps(connection))
    n8n.register({"notify": Workflow()})
    return n8n.webhook("notify")


def run(operator: Any, map_index: int = -1, max_tries: int = 2) -> Any:
    instance = SimpleNamespace(
        dag_id="mine", run_id="run 1", task_id="notify", map_index=map_index, max_tries=max_tries
    )
    context: Any = {"ti": instance, "task": operator}
    operator.render_template_fields(context)
    return operator.execute(context)


def test_payload_is_not_rendered(n8n: N8nControl, url: str) -> None:
    payload = {"id": 7, "text": EVIL, "nested": [{EVIL: EVIL}]}
    result = run(N8nWebhookOperator(task_id="notify", url=url, payload=payload))
    assert result == {"status": 200, "requests": 1, "retryCount": 0}
    assert counts(result) == {"requests": 1, "retryCount": 0}
    (execution,) = n8n.executions()
    assert execution["body"] == payload
    assert execution["idempotency_key"] == "mine/run%201/notify/-1/2"


def test_mapped_payload_is_not_rendered(n8n: N8nControl, url: str) -> None:
    with DAG("mine", schedule=None):
        mapped = N8nWebhookOperator.partial(task_id="notify", url=url).expand_kwargs([{"payload": {"text": EVIL}}])
    run(mapped.unmap({"payload": {"text": EVIL}}), map_index=3)
    (execution,) = n8n.executions()
    assert execution["body"] == {"text": EVIL}
    assert execution["idempotency_key"] == "mine/run%201/notify/3/2"


def test_idempotency_key_argument_is_sent(n8n: N8nControl, url: str) -> None:
    run(N8nWebhookOperator(task_id="notify", url=url, payload={}, idempotency_key="order-7"))
    assert n8n.executions()[0]["idempotency_key"] == "order-7"


def test_retries_share_a_key_and_a_clear_has_a_new_one(n8n: N8nControl, url: str) -> None:
    operator = N8nWebhookOperator(task_id="notify", url=url, payload={})
    for max_tries in (2, 2, 5):
        run(operator, max_tries=max_tries)
    first, retry, cleared = (execution["idempotency_key"] for execution in n8n.executions())
    assert first == retry != cleared


def test_refused_request_fails_the_task(n8n: N8nControl, url: str) -> None:
    n8n.register({"notify": Workflow(active=False)})
    with pytest.raises(N8nRefusedError, match='webhook "POST notify" is not registered'):
        run(N8nWebhookOperator(task_id="notify", url=url, payload={}))
