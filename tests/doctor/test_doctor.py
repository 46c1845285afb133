"""The doctor on an installation in which one thing at a time is broken."""

from __future__ import annotations

import json
import socket
import threading
from dataclasses import asdict
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from aggregator.core.catalog import CATALOG
from aggregator.doctor import databases
from aggregator.doctor.__main__ import main, report
from aggregator.doctor.rows import Row, Status, clock, run
from dev.n8n.app import Workflow
from dev.sample import kpis
from dev.stand_in.faults import Fault
from tests.doctor.conftest import PATH, ROLE, SECRETS, connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg
    from pytest_httpserver import HTTPServer

    from dev.analytics_engine.client import AnalyticsEngineControl
    from dev.n8n.client import N8nControl

MINUTES = timedelta(minutes=5)
FAILURE, WARNING = Status.FAILURE, Status.WARNING


class Parts(NamedTuple):
    """The parts of the installation that a test breaks."""

    patch: pytest.MonkeyPatch
    products: psycopg.Connection
    analytics_engine: AnalyticsEngineControl
    n8n: N8nControl
    receiver: HTTPServer

    def setenv(self, name: str, value: str) -> None:
        self.patch.setenv(name, value)

    def airflow(self, statement: str) -> None:
        from airflow.utils.session import create_session  # noqa: PLC0415
        from sqlalchemy import text  # noqa: PLC0415

        with create_session() as session:
            session.execute(text(statement))

    def registry(self, change: Callable[[dict[str, Any]], object]) -> None:
        document = kpis.registry(self.n8n.url)
        change(document)
        self.patch.setenv("AIRFLOW_VAR_KPI-REGISTRY", json.dumps(document))


@pytest.fixture
def parts(
    healthy: None,
    monkeypatch: pytest.MonkeyPatch,
    products: psycopg.Connection,
    analytics_engine: AnalyticsEngineControl,
    n8n: N8nControl,
    httpserver: HTTPServer,
) -> Parts:
    return Parts(monkeypatch, products, analytics_engine, n8n, httpserver)


def problems(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.status is not Status.OK]


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def test_healthy_installation_has_only_ok_rows_and_nothing_was_started(parts: Parts) -> None:
    rows = report(limit=MINUTES)
    assert problems(rows) == []
    assert {row.subject for row in rows} >= {facts.conn_id for facts in CATALOG.values()}
    assert parts.n8n.executions() == []
    assert {request.method for request, _ in parts.receiver.log} == {"HEAD"}


BREAKS: list[tuple[str, Callable[[Parts], object], tuple[str, str, Status, str]]] = [
    (
        "setting",
        lambda it: it.setenv("MAX_TASKS_PER_RUN", "many"),
        ("settings", "OhlcvSettings", FAILURE, "MAX_TASKS_PER_RUN"),
    ),
    (
        "heartbeat",
        lambda it: it.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "5"),
        ("airflow", "workers.min_heartbeat_interval", WARNING, "Set it to 1"),
    ),
    (
        "lazy plugins",
        lambda it: it.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor"),
        ("airflow", "core.lazy_load_plugins", WARNING, "Set it to False"),
    ),
    (
        "time zone",
        lambda it: it.setenv("AIRFLOW__CORE__DEFAULT_TIMEZONE", "Europe/Berlin"),
        ("airflow", "core.default_timezone", WARNING, "Set it to utc"),
    ),
    (
        "parallelism",
        lambda it: it.setenv("AIRFLOW__CORE__PARALLELISM", "1"),
        ("airflow", "core.parallelism", WARNING, "Raise it"),
    ),
    (
        "start method",
        lambda it: it.setenv("AIRFLOW__CORE__MP_START_METHOD", "spawn"),
        ("airflow", "core.mp_start_method", WARNING, "fork"),
    ),
    (
        "DAG is missing",
        lambda it: it.airflow("delete from dag where dag_id = 'kpi_dispatch'"),
        ("airflow", "DAGs", FAILURE, "not loaded: kpi_dispatch"),
    ),
    (
        "import error",
        lambda it: it.airflow(
            "insert into import_error (id, filename, bundle_name, stacktrace) values (1, 'new.py', 'dags-folder', '')"
        ),
        ("airflow", "DAGs", FAILURE, "import errors in new.py"),
    ),
    (
        "Airflow's database",
        lambda it: it.airflow("drop table dag"),
        ("airflow", "database", FAILURE, "cannot be read (OperationalError)"),
    ),
    (
        "disk is full",
        lambda it: it.patch.setattr("aggregator.doctor.installation.SMALLEST", 10**18),
        ("disk", "task logs", FAILURE, "GB free"),
    ),
    (
        "log folder",
        lambda it: it.setenv("AIRFLOW__LOGGING__BASE_LOG_FOLDER", "/nowhere/at/all"),
        ("disk", "task logs", FAILURE, "No such file or directory"),
    ),
    (
        "unknown connection",
        lambda it: it.patch.delenv("AIRFLOW_CONN_CLICKS_DB"),
        ("clicks_db", "connection", FAILURE, "'clicks_db' is unknown"),
    ),
    (
        "database is down",
        lambda it: connect(
            it.patch, "clicks_db", conn_type="postgres", host="127.0.0.1", port=closed_port(), password=SECRETS[3]
        ),
        ("clicks_db", "connection", FAILURE, "cannot be reached by connection clicks_db"),
    ),
    (
        "right on a written table",
        lambda it: it.products.execute(f"revoke insert on public.click_rollups from {ROLE}"),
        ("clicks_db", "rights", FAILURE, "missing: insert on public.click_rollups."),
    ),
    (
        "right on a source",
        lambda it: it.products.execute(f"revoke select on scoring.lead_scores from {ROLE}"),
        ("analytics_db", "rights", FAILURE, "missing: select on scoring.lead_scores."),
    ),
    (
        "right on a schema",
        lambda it: it.products.execute(f"revoke usage on schema lead_intelligence from {ROLE}"),
        ("analytics_db", "rights", FAILURE, "missing: select on lead_intelligence.enrichment_jobs."),
    ),
    (
        "table is missing",
        lambda it: it.products.execute("alter table delivery.sending_domains rename to other"),
        ("analytics_db", "rights", FAILURE, "missing: table delivery.sending_domains."),
    ),
    (
        "right on a function",
        lambda it: it.products.execute(f"revoke execute on all functions in schema kpi from {ROLE}"),
        ("kpi_db", "rights", FAILURE, "execute on kpi.claim_kpi"),
    ),
    (
        "owner of candles",
        lambda it: it.products.execute(
            f"alter table ohlcv.candles owner to current_user; grant all on ohlcv.candles to {ROLE}"
        ),
        ("market_db", "rights", FAILURE, "missing: own on ohlcv.candles."),
    ),
    (
        "right on alerts",
        lambda it: it.products.execute(f"revoke delete on ops.alerts from {ROLE}"),
        ("ops_db", "rights", FAILURE, "missing: delete on ops.alerts."),
    ),
    (
        "migration is missing",
        lambda it: it.products.execute("delete from migrations.history where database = 'kpi' and name ~ '^0003'"),
        ("kpi_db", "migrations", FAILURE, "missing: 0003_send_first."),
    ),
    (
        "function is outdated",
        lambda it: it.products.execute("update migrations.functions set digest = 'x' where name = 'claim_tasks'"),
        ("market_db", "migrations", FAILURE, "missing: claim_tasks."),
    ),
    (
        "migration was changed",
        lambda it: it.products.execute(
            "update migrations.history set digest = 'x' where database = 'clicks' and name ~ '^0001'"
        ),
        ("clicks_db", "migrations", FAILURE, "its file was changed later"),
    ),
    (
        "Analytics Engine is down",
        lambda it: connect(it.patch, "analytics_engine", conn_type="http", host=f"http://127.0.0.1:{closed_port()}"),
        ("analytics_engine", "connection", FAILURE, "is not reachable"),
    ),
    (
        "token",
        lambda it: it.analytics_engine.faults([Fault(status=403, body="Authorization error")]),
        ("analytics_engine", "connection", FAILURE, "permission: Account Analytics Read"),
    ),
    (
        "dataset",
        lambda it: it.analytics_engine.delete("clicks"),
        ("analytics_engine", "dataset clicks", WARNING, "no rows"),
    ),
    (
        "no connection to n8n",
        lambda it: it.patch.delenv("AIRFLOW_CONN_N8N"),
        ("n8n", "key", WARNING, "there is no connection n8n"),
    ),
    (
        "n8n is down",
        lambda it: it.registry(
            lambda document: document["kpis"][0].update(webhookUrl=f"http://8.8.8.8.invalid:{closed_port()}/webhook/x")
        ),
        ("n8n", "http://8.8.8.8.invalid", FAILURE, "cannot be resolved"),
    ),
    (
        "private address",
        lambda it: it.registry(
            lambda document: document["kpis"][0].update(webhookUrl=f"http://127.0.0.1:{closed_port()}/webhook/x")
        ),
        ("n8n", "http://127.0.0.1", FAILURE, "not a public address"),
    ),
    (
        "webhook is not active",
        lambda it: it.n8n.register({"btc-price": Workflow(active=False)}),
        ("n8n", "webhooks", FAILURE, "not registered for POST: btc-price."),
    ),
    (
        "webhook has another method",
        lambda it: it.n8n.register({"btc-price": Workflow(method="GET")}),
        ("n8n", "webhooks", FAILURE, "not registered for POST: btc-price."),
    ),
    (
        "n8n starts",
        lambda it: it.n8n.boot(starting=len(kpis.NAMES), unregistered=0),
        ("n8n", "webhooks", WARNING, "unknown for btc-price"),
    ),
    (
        "registry is missing",
        lambda it: it.patch.delenv("AIRFLOW_VAR_KPI-REGISTRY"),
        ("n8n", "connection", FAILURE, "There is no KPI registry"),
    ),
    (
        "registry has an invalid entry",
        lambda it: it.registry(lambda document: document["kpis"][0].pop("type")),
        ("n8n", "registry", WARNING, "not sent: btc-price (type: Field required)"),
    ),
    (
        "no receiver of alerts",
        lambda it: it.patch.delenv("AIRFLOW_CONN_ALERTS_WEBHOOK"),
        ("alerts_webhook", "connection", WARNING, "there is none"),
    ),
    (
        "receiver of alerts is down",
        lambda it: connect(
            it.patch, "alerts_webhook", conn_type="http", host=f"http://127.0.0.1:{closed_port()}", password=PATH
        ),
        ("alerts_webhook", "connection", FAILURE, "is not reachable"),
    ),
]


@pytest.mark.parametrize(
    ("damage", "expected"), [pytest.param(damage, expected, id=name) for name, damage, expected in BREAKS]
)
def test_broken_part_is_reported_with_advice_and_without_secrets(
    parts: Parts, damage: Callable[[Parts], object], expected: tuple[str, str, Status, str]
) -> None:
    subject, check, status, text = expected
    damage(parts)
    rows = report(limit=MINUTES)
    found = [row for row in problems(rows) if row.subject == subject and row.check.startswith(check)]
    assert found, problems(rows)
    assert found[0].status is status
    assert text in f"{found[0].found}. {found[0].advice}"
    texts = json.dumps([asdict(row) for row in rows])
    assert not [secret for secret in SECRETS if secret in texts]
    assert parts.n8n.executions() == []


def test_paused_dag_turns_its_failures_into_warnings(parts: Parts) -> None:
    parts.patch.delenv("AIRFLOW_CONN_KPI_DB")
    parts.patch.delenv("AIRFLOW_CONN_OPS_DB")
    parts.airflow("update dag set is_paused = true where dag_id = 'kpi_dispatch'")
    found = {row.subject: row for row in problems(report(limit=MINUTES))}
    assert found["kpi_db"].status is WARNING
    assert found["kpi_db"].advice == "Only paused DAGs need it."
    assert found["ops_db"].status is FAILURE


def test_wrong_clock_of_a_server_is_a_warning(parts: Parts) -> None:
    class Late(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def date_time_string(self, timestamp: float | None = None) -> str:
            return "Sun, 15 Nov 2015 10:00:00 GMT"

    with ThreadingHTTPServer(("127.0.0.1", 0), Late) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"http://127.0.0.1:{server.server_port}"
        connect(parts.patch, "alerts_webhook", conn_type="http", host=host, password=PATH)
        (found,) = problems(report(limit=MINUTES))
        server.shutdown()
    assert (found.subject, found.check, found.status) == ("alerts_webhook", "clock", WARNING)


def test_unreadable_migrations_are_a_warning(parts: Parts) -> None:
    parts.products.execute(f"revoke usage on schema migrations from {ROLE}")
    rows = [row for row in report(limit=MINUTES) if row.check == "migrations"]
    assert {row.status for row in rows} == {WARNING}
    assert "Grant usage on schema migrations" in rows[0].advice


def test_pooler_is_recognized(
    parts: Parts, products_url: str, pooler: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CLICKS_DB", pooler(products_url))
    found = {row.subject: row.found for row in report(limit=MINUTES) if row.check == "connection"}
    assert ", through a pooler, " in found["clicks_db"]
    assert ", direct, " in found["kpi_db"]


def test_public_address_without_tls_is_a_failure(
    parts: Parts, products_url: str, pooler: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CLICKS_DB", pooler(products_url))
    monkeypatch.setattr(databases, "is_public", lambda _: True)
    (found,) = problems(report(limit=MINUTES))
    assert (found.subject, found.check, found.status) == ("clicks_db", "connection", FAILURE)
    assert "sslmode=verify-full" in found.advice


@pytest.mark.parametrize(("status", "exit_code"), [(200, 0), (404, 1)])
def test_test_alert_is_sent_on_request_only(
    parts: Parts, capsys: pytest.CaptureFixture[str], status: int, exit_code: int
) -> None:
    parts.receiver.expect_request(f"/{PATH}", method="POST").respond_with_data(status=status)
    assert main(["--json"]) == 0
    assert [request.method for request, _ in parts.receiver.log] == ["HEAD"]
    assert main(["--json", "--send-test-alert"]) == exit_code
    (request,) = [request for request, _ in parts.receiver.log if request.method == "POST"]
    assert request.get_json()["text"].startswith("TEST: ")
    capsys.readouterr()


def test_table_has_every_row_and_warnings_do_not_fail(parts: Parts, capsys: pytest.CaptureFixture[str]) -> None:
    parts.analytics_engine.delete("clicks")
    assert main([]) == 0
    output = capsys.readouterr().out
    assert "→ Correct if the product has not written yet." in output
    assert "warning: 1, failure: 0" in output
    parts.patch.delenv("AIRFLOW_CONN_CLICKS_DB")
    assert main([]) == 1


def test_check_that_hangs_keeps_its_rows_and_does_not_delay_others() -> None:
    release = threading.Event()
    ok = Row("fast", "connection", Status.OK, "")

    def hang() -> Iterator[Row]:
        yield Row("slow", "first", Status.OK, "")
        release.wait()

    def fail() -> Iterator[Row]:
        yield ok
        raise ValueError("postgresql://user:secret@host")

    rows = run({"slow": hang, "fast": lambda: iter([ok]), "broken": fail}, timedelta(seconds=3))
    release.set()
    assert [(row.subject, row.check, row.status) for row in rows] == [
        ("slow", "first", Status.OK),
        ("slow", "connection", FAILURE),
        ("fast", "connection", Status.OK),
        ("fast", "connection", Status.OK),
        ("broken", "connection", FAILURE),
    ]
    assert rows[1].found == "no response within 3 s"
    assert rows[-1].found == "The check failed with ValueError."


@pytest.mark.parametrize(("seconds", "status"), [(4.9, Status.OK), (-4.9, Status.OK), (5.1, WARNING), (-60, WARNING)])
def test_clock_that_differs_by_seconds_is_a_warning(seconds: float, status: Status) -> None:
    assert clock("clicks_db", seconds).status is status
