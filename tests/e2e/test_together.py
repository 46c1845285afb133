"""All ten DAGs together: cleared, measured, and searched for secrets. pytest runs this module after the others."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

import psycopg
import pytest

from aggregator.alerts.freshness import TARGETS
from aggregator.core.metrics import COUNTERS, DURATION
from dev.airflow_api import NotYetError, wait
from dev.demo import TRIGGERED
from dev.sample import kpis
from dev.scale_out import differences, digests
from dev.stack import DATABASES, dag_ids
from dev.stand_in.faults import Fault
from tests.leaks import leaked
from tests.market_data import stored

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dev.alerts_receiver import AlertsReceiver
    from dev.stack import Stack
    from tests.e2e.conftest import Statsd

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

WRITTEN = {target.table.split()[0] for target in TARGETS} - {"ohlcv.bars"} | {
    "kpi.job_kpis",
    "delivery.warmup_counters",
}
"""The tables of the ten DAGs without bars, because the schedule builds new bars during the tests."""

STARTED = {*TRIGGERED, "analytics_score_distribution"}
"""DAGs that a test has to start: their rows depend on the time, so a run of the day before writes other rows."""

NOTHING_RENDERED = {"kpi_dispatch"}
"""DAGs without templates: n8n's own braces must not be rendered."""


@pytest.fixture(scope="module")
def runs(stack: Stack) -> dict[str, str]:
    """DAG → a run that succeeded: the newest scheduled or backfilled run, or one that this fixture started."""
    started = {dag_id: stack.airflow.start(dag_id) for dag_id in STARTED}
    return {
        dag_id: wait(partial(newest_success, stack, dag_id, started.get(dag_id)), seconds=180)
        for dag_id in sorted(dag_ids())
    }


def newest_success(stack: Stack, dag_id: str, run_id: str | None) -> str:
    for run in stack.airflow.runs(dag_id):
        # `airflow dags test` turns a scheduled run into a manual one.
        wanted = run["run_type"] != "manual" if run_id is None else run["dag_run_id"] == run_id
        if wanted and run["state"] == "success":
            return str(run["dag_run_id"])
    msg = f"no run of {dag_id} has succeeded"
    raise NotYetError(msg)


def test_cleared_run_of_every_dag_succeeds_changes_nothing_and_sends_no_alert(
    stack: Stack, products: psycopg.Connection, receiver: AlertsReceiver, runs: dict[str, str]
) -> None:
    scheduler = stack.supervisor.processes_of("scheduler")[0].pid
    before, bars, told, sent = written(products), stored(products), len(receiver.messages()), stack.n8n.executions()
    ((newest_alert,),) = products.execute("select coalesce(max(id), 0) from ops.alerts").fetchall()

    for dag_id, run_id in runs.items():
        stack.airflow.clear(dag_id, run_id)
    states = {dag_id: stack.airflow.wait_for_run(dag_id, run_id)["state"] for dag_id, run_id in runs.items()}

    assert states == dict.fromkeys(dag_ids(), "success")
    assert {tries(stack, dag_id, run_id) > 1 for dag_id, run_id in runs.items()} == {True}
    assert differences(before, written(products)) == []
    assert stored(products).items() >= bars.items()
    assert bars
    assert all(rows for rows, _ in before.values())
    assert stack.n8n.executions() == sent
    # https://github.com/apache/airflow/issues/70368 ends the scheduler, and the stack would restart it.
    assert stack.supervisor.processes_of("scheduler")[0].pid == scheduler
    # These alerts are independent of the cleared runs: a broken symbol of the sample, and the probes.
    query = "select text from ops.alerts where id > %s and kind <> 'task_disabled' and subject not like 'probe%%'"
    assert products.execute(query, [newest_alert]).fetchall() == []
    assert [text for text in receiver.messages()[told:] if not re.search("^CRITICAL DISABLED|: probe_", text)] == []


def written(products: psycopg.Connection) -> dict[str, tuple[int, str]]:
    return {table: digest for table, digest in digests(products).items() if table in WRITTEN}


def tries(stack: Stack, dag_id: str, run_id: str) -> int:
    """The highest try number of a run's tasks."""
    tasks = stack.airflow.get(f"dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
    return max(int(task["try_number"]) for task in tasks)


def test_every_documented_metric_is_received_with_its_tags(stack: Stack, statsd: Statsd, runs: dict[str, str]) -> None:
    sent = re.findall(
        r"^airflow\.(aggregator\.[\w.]+),(\S+):(\d+)(?:\.\d+)?\|(\w+)$", "\n".join(statsd.lines), re.MULTILINE
    )
    assert {(name, kind) for name, _, _, kind in sent} == {
        *((name, "c") for name, _ in COUNTERS.values()),
        (DURATION, "ms"),
    }
    tasks = {tags for name, tags, *_ in sent if name == DURATION}
    assert {dag_id for dag_id in dag_ids() if any(f"dag_id={dag_id}," in tags for tags in tasks)} == dag_ids()

    result = stack.airflow.result("click_rollups", runs["click_rollups"], "roll_up_clicks")
    about = "dag_id=click_rollups,task_id=roll_up_clicks"
    assert ("aggregator.rows.read", about, str(result["read"]), "c") in sent
    assert ("aggregator.requests.sent", about, str(result["requests"]), "c") in sent


@pytest.fixture(scope="module")
def failed(stack: Stack, receiver: AlertsReceiver, runs: dict[str, str]) -> None:
    """A failed run of each DAG that sends a secret. The server returned the secret."""
    token, key = ((stack.home / "secrets" / name).read_text() for name in ("analytics_engine_token", "n8n_key"))
    kpi = min(kpis.NAMES)
    stack.analytics_engine.faults([Fault(status=403, body=f"Bearer {token} is not welcome")])
    stack.n8n.faults({kpi: [Fault(status=403, body=f"Bearer {key} is not welcome")]})
    started = {
        "click_rollups": stack.airflow.start("click_rollups"),
        "kpi_dispatch": stack.airflow.start("kpi_dispatch", kpis=[kpi], resend=True),
    }
    for dag_id, run_id in started.items():
        assert stack.airflow.wait_for_run(dag_id, run_id)["state"] == "failed"
        assert "is not welcome" in "".join(path.read_text() for path in logs(stack, dag_id))
        receiver.wait_for_messages(f"FAILED: {dag_id}", 1)


def logs(stack: Stack, dag_id: str) -> list[Path]:
    return list((stack.home / "airflow/logs" / f"dag_id={dag_id}").rglob("*.log"))


@pytest.mark.usefixtures("failed")
class TestSecrets:
    """Every secret is a marker. No output of the ten DAGs contains one, including that of failed runs."""

    def test_searched_places_are_not_empty(self, stack: Stack) -> None:
        assert {path.name for path in (stack.home / "secrets").iterdir()} >= {
            *("alerts_webhook", "analytics_engine_token", "cron_secret", "database_password", "fernet_key"),
            *("jwt_secret", "n8n_key", "scheduler_api_key", "secret_key"),
        }
        assert {dag_id for dag_id in dag_ids() if logs(stack, dag_id)} == dag_ids()
        with psycopg.connect(stack.url_of("airflow")) as airflow:
            for table, nothing_of in (("xcom", set()), ("rendered_task_instance_fields", NOTHING_RENDERED)):
                found = airflow.execute(f"select distinct dag_id from {table}").fetchall()
                assert {dag_id for (dag_id,) in found} >= dag_ids() - nothing_of, table
        with psycopg.connect(stack.products_url) as products:
            for table in ("ops.alerts", "ops.alert_messages", "ops.ops_runlog", "kpi.job_kpis"):
                assert products.execute(f"select from {table} limit 1").rowcount == 1, table

    def test_no_secret_is_in_a_file(self, stack: Stack) -> None:
        assert {path: found for path in files(stack) if (found := leaked(stack.home, path.read_bytes()))} == {}

    @pytest.mark.parametrize("database", DATABASES)
    def test_no_secret_is_in_a_database(self, stack: Stack, database: str) -> None:
        # Including XComs, rendered fields and alerts.
        rows = stack.run("pg_dump", "--data-only", stack.url_of(database))
        assert "COPY" in rows
        assert leaked(stack.home, rows.encode()) == []

    def test_no_secret_is_in_a_sent_alert(self, stack: Stack, receiver: AlertsReceiver) -> None:
        assert leaked(stack.home, "\n".join([*receiver.messages(), *receiver.refused]).encode()) == []

    def test_no_file_contains_a_task_token(self, stack: Stack) -> None:
        token = re.compile(rb"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}")
        assert [path for path in files(stack) if token.search(path.read_bytes())] == []


def files(stack: Stack) -> Iterator[Path]:
    """Every file that the stack wrote, such as logs and configuration, without PostgreSQL's data."""
    apart = {stack.home / "secrets", stack.home / "postgres"}
    yield from (stack.home / "postgres").glob("log")
    for path in stack.home.rglob("*"):
        if path.is_file() and not apart & set(path.parents):
            yield path
