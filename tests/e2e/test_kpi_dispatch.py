"""KPI dispatch on a real Airflow: started, cleared, killed, backfilled. n8n's executions show how often a KPI ran."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import psycopg
import pytest

from dev.airflow_api import NotYetError, wait
from dev.n8n.app import Workflow
from dev.sample import kpis
from dev.stand_in.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dev.stack import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

DAG = "kpi_dispatch"
TASK = "trigger_kpi"
SENDER = "send_kpis"
SIX = ("cut-off", "one", "two", "three", "four", "five")
EXTRA = ("good", "failing", "killed-after", "killed-before", "cleared", "reporting", *SIX)

CLAIM_WAITS = """
create function public.claim_waits() returns trigger language plpgsql as
    $$ begin perform pg_advisory_xact_lock(1); return new; end $$;
create trigger claim_waits before update on kpi.job_kpis for each row
    when (new.kpi_id = 'killed-before' and new.status = 'sending') execute function public.claim_waits()
"""


@pytest.fixture(scope="module")
def registry(stack: Stack) -> Iterator[None]:
    """The registry of the sample, and KPIs for these tests only."""
    stack.airflow.wait_until_loaded({DAG})
    before = stack.airflow.get("variables/kpi-registry")
    entries = json.loads(before["value"])["kpis"]
    extra = [
        {**entries[0], "id": id_, "webhookUrl": stack.n8n.webhook(id_), "reportBack": id_ == "reporting"}
        for id_ in EXTRA
    ]
    stack.n8n.register({id_: Workflow() for id_ in EXTRA})
    value = json.dumps({"kpis": [*entries, *extra]})
    stack.airflow.patch("variables/kpi-registry", key="kpi-registry", value=value)
    yield
    stack.airflow.patch("variables/kpi-registry", key="kpi-registry", value=before["value"])


@pytest.fixture(scope="module")
def first_run(stack: Stack, registry: None) -> str:
    """A run that has sent the KPIs of the sample."""
    return str(ended(stack, start(stack, *kpis.NAMES))["dag_run_id"])


def start(stack: Stack, *chosen: str, **params: Any) -> str:
    return stack.airflow.start(DAG, kpis=chosen, **params)


def clear(stack: Stack, run_id: str, **what: Any) -> None:
    """Clear a part of a run."""
    body = {"dry_run": False, "dag_run_id": run_id, "only_failed": False, **what}
    stack.airflow.post(f"dags/{DAG}/clearTaskInstances", **body)


def ended(stack: Stack, run_id: str, seconds: float = 120) -> dict[str, Any]:
    return stack.airflow.wait_for_run(DAG, run_id, seconds=seconds)


def instances(stack: Stack, run_id: str) -> dict[str, dict[str, Any]]:
    """The instances by the names that the UI shows."""
    path = f"dags/{DAG}/dagRuns/{run_id}/taskInstances/{TASK}/listMapped"
    return {task["rendered_map_index"]: task for task in stack.airflow.get(path, limit=100)["task_instances"]}


def sender(stack: Stack, run_id: str, state: str) -> dict[str, Any]:
    """The task that sends all KPIs, once it is in this state."""

    def found() -> dict[str, Any]:
        task = stack.airflow.get(f"dags/{DAG}/dagRuns/{run_id}/taskInstances/{SENDER}")
        if task["state"] != state:
            msg = f"{SENDER} is {task['state']}"
            raise NotYetError(msg)
        return task

    task: dict[str, Any] = wait(found, seconds=60)
    return task


def executions(stack: Stack) -> Counter[str]:
    return Counter(execution["path"] for execution in stack.n8n.executions())


def statuses(products: psycopg.Connection) -> dict[str, str]:
    return dict(products.execute("select kpi_id, status from kpi.job_kpis").fetchall())


def test_run_starts_each_workflow_once_in_an_instance_of_its_name(
    stack: Stack, products: psycopg.Connection, first_run: str
) -> None:
    tasks = instances(stack, first_run)
    assert {name: task["state"] for name, task in tasks.items()} == dict.fromkeys(kpis.NAMES, "success")
    assert executions(stack) == Counter([*kpis.NAMES])
    expected = {id_: "completed" if id_ in kpis.REPORTING else "triggered" for id_ in kpis.NAMES}
    assert statuses(products) == expected
    key = stack.environment()["AIRFLOW_CONN_N8N"]
    assert {request["headers"]["authorization"] for request in stack.n8n.requests()} == {
        f"Bearer {json.loads(key)['password']}"
    }


def test_clear_and_second_run_of_the_day_send_nothing_again(stack: Stack, first_run: str) -> None:
    stack.airflow.clear(DAG, first_run)
    second = start(stack, *kpis.NAMES)
    assert ended(stack, second)["state"] == "success"
    assert ended(stack, first_run)["state"] == "success"
    assert instances(stack, first_run)["btc-price"]["try_number"] == 2
    assert executions(stack) == Counter([*kpis.NAMES])


def test_killed_after_the_request_is_unknown_and_a_failure_is_sent_again(
    stack: Stack, products: psycopg.Connection, first_run: str
) -> None:
    stack.n8n.faults(
        {"killed-after": [Fault(delay_seconds=25)], "failing": [Fault(status=422, body="No such coin", times=2)]}
    )
    # A clear of a run with resend sends nothing else.
    run_id = start(stack, "good", "failing", "killed-after", resend=True)
    wait(lambda: started(stack, "killed-after"), seconds=60)
    wait(lambda: recorded(products, "failing", "failed"), seconds=60)
    psutil.Process(sender(stack, run_id, "running")["pid"]).kill()
    sender(stack, run_id, "up_for_retry")

    # A clear starts the next try, because the backoff takes too long.
    clear(stack, run_id, task_ids=[SENDER], include_downstream=True)

    assert ended(stack, run_id)["state"] == "failed"
    assert {name: task["state"] for name, task in instances(stack, run_id).items()} == {
        "good": "success",
        "failing": "failed",
        "killed-after": "failed",
    }
    log = stack.airflow.log(DAG, run_id, "settle_job", 1)
    assert "No such coin" in log
    clear(stack, run_id, only_failed=True)
    assert ended(stack, run_id)["state"] == "failed"
    assert {"good": "triggered", "failing": "triggered", "killed-after": "unknown"}.items() <= statuses(
        products
    ).items()
    assert executions(stack) == Counter([*kpis.NAMES, "good", "failing", "killed-after"])
    keys = [request["headers"]["idempotency-key"] for request in stack.n8n.requests("failing")]
    assert len(keys) == len(set(keys)) == 3


def test_killed_before_the_request_is_sent_once_by_the_next_try(
    stack: Stack, products: psycopg.Connection, first_run: str
) -> None:
    # The claim waits for this lock. Nothing is committed, and nothing is sent.
    products.execute(CLAIM_WAITS)
    with psycopg.connect(stack.products_url) as holder:
        holder.execute("select pg_advisory_xact_lock(1)")
        run_id = start(stack, "killed-before")
        wait(lambda: claims(products), seconds=60)
        psutil.Process(sender(stack, run_id, "running")["pid"]).kill()
        sender(stack, run_id, "up_for_retry")
    products.execute("drop function public.claim_waits cascade")
    clear(stack, run_id, task_ids=[SENDER], include_downstream=True)
    assert ended(stack, run_id)["state"] == "success"
    assert executions(stack)["killed-before"] == 1


def test_run_cleared_while_it_sends_sends_nothing_twice(
    stack: Stack, products: psycopg.Connection, first_run: str
) -> None:
    stack.n8n.faults({"cleared": [Fault(delay_seconds=25)]})
    before = executions(stack)["good"]
    run_id = start(stack, "good", "cleared", resend=True)
    wait(lambda: started(stack, "cleared"), seconds=60)
    stack.airflow.clear(DAG, run_id)
    assert ended(stack, run_id)["state"] == "failed"
    assert statuses(products)["cleared"] == "unknown"
    assert (executions(stack)["cleared"], executions(stack)["good"]) == (1, before + 1)


def test_scheduler_killed_with_its_tasks_sends_nothing_twice(
    stack: Stack, products: psycopg.Connection, first_run: str
) -> None:
    stack.n8n.faults({"cut-off": [Fault(delay_seconds=25)]})
    run_id = start(stack, *SIX)
    wait(lambda: started(stack, "cut-off"), seconds=60)
    kill(stack, "scheduler")
    # The sender is retried after a minute.
    assert ended(stack, run_id, seconds=240)["state"] == "failed"
    found = {id_: status for id_, status in statuses(products).items() if id_ in SIX}
    sent = executions(stack)
    assert (found["cut-off"], sent["cut-off"]) == ("unknown", 1)
    # Other instances can have been killed between their claim and their request.
    assert set(found.values()) == {"triggered", "unknown"}
    assert {sent[id_] for id_ in SIX if found[id_] == "triggered"} == {1}
    assert max(sent[id_] for id_ in SIX) == 1


def test_report_is_found_after_the_triggerer_was_killed(
    stack: Stack, products: psycopg.Connection, first_run: str
) -> None:
    run_id = start(stack, "reporting")
    wait(lambda: deferred(stack, run_id), seconds=60)
    kill(stack, "triggerer")
    ((trace_id,),) = products.execute("select trace_id from kpi.jobs where run_id = %s", [run_id]).fetchall()
    response = httpx.post(
        f"{stack.airflow_url}/api/kpi/{trace_id}/reporting",
        json={"status": "completed"},
        headers={"Authorization": f"Bearer {stack.environment()['SCHEDULER_API_KEY']}"},
    )
    assert response.status_code == 200
    assert ended(stack, run_id)["state"] == "success"
    assert statuses(products)["reporting"] == "completed"
    assert executions(stack)["reporting"] == 1


def test_backfill_of_an_old_day_sends_nothing(stack: Stack, products: psycopg.Connection, first_run: str) -> None:
    before = executions(stack)
    day = datetime.now(UTC) - timedelta(days=3)
    dates = {"from_date": day.isoformat(), "to_date": (day + timedelta(days=1)).isoformat()}
    stack.airflow.post("backfills", dag_id=DAG, **dates)
    for run in stack.airflow.wait_for_backfill(DAG, 1):
        task = stack.airflow.get(f"dags/{DAG}/dagRuns/{run['dag_run_id']}/taskInstances/read_registry")
        assert (task["state"], run["state"]) == ("skipped", "success")
    assert executions(stack) == before


def kill(stack: Stack, program: str) -> None:
    """Kill a program and all its children, as a machine failure does. The stack restarts it."""
    with psycopg.connect(stack.url_of("airflow")) as airflow:
        for process in stack.supervisor.processes_of(program):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        # Airflow needs half a minute to detect a dead scheduler or triggerer.
        airflow.execute(
            "update job set latest_heartbeat = latest_heartbeat - interval '1 hour' where job_type = %s",
            [f"{program.title()}Job"],
        )


def deferred(stack: Stack, run_id: str) -> None:
    state = stack.airflow.get(f"dags/{DAG}/dagRuns/{run_id}/taskInstances/settle_job")["state"]
    if state != "deferred":
        msg = f"settle_job is {state}"
        raise NotYetError(msg)


def started(stack: Stack, path: str) -> None:
    if not stack.n8n.executions(path):
        msg = f"{path} was not called"
        raise NotYetError(msg)


def recorded(products: psycopg.Connection, kpi_id: str, status: str) -> None:
    if (found := statuses(products).get(kpi_id)) != status:
        msg = f"{kpi_id} is {found}"
        raise NotYetError(msg)


def claims(products: psycopg.Connection) -> None:
    query = "select from pg_stat_activity where application_name like %s and wait_event_type = 'Lock'"
    if products.execute(query, [f"{DAG}/{SENDER}/%"]).fetchone() is None:
        msg = "the claim does not wait for the lock"
        raise NotYetError(msg)
