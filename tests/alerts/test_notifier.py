"""Delivery: a receiver that is down, wrong or slow loses no message and gets none twice."""

from __future__ import annotations

import logging
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from airflow.sdk import DAG, BaseOperator, Connection
from werkzeug import Response

from aggregator.alerts import notifier
from aggregator.alerts.notifier import deliver, notify, notify_failed, webhook_url
from aggregator.alerts.store import Alert, Kind, open_alerts, raise_alert, resolve
from aggregator.core import failures
from aggregator.core.errors import AggregatorError, PermanentError, TransientError, WrongParamsError
from tests.alerts.conftest import PATH

if TYPE_CHECKING:
    import psycopg
    from airflow.sdk import Context
    from pytest_httpserver import HTTPServer

SINCE = datetime(2026, 11, 16, 2, tzinfo=UTC)
URL = f"/{PATH}"


def alert(number: int = 0) -> Alert:
    return Alert(Kind.STALE, f"table{number}", SINCE, f"STALE: table{number} <&>")


def retry_now(ops: psycopg.Connection) -> None:
    ops.execute("update ops.alert_messages set next_attempt_at = now()")


def unsent(ops: psycopg.Connection) -> list[tuple[Any, ...]]:
    query = "select attempts, error from ops.alert_messages where sent_at is null order by id"
    return ops.execute(query).fetchall()


def accepted(receiver: HTTPServer) -> list[str]:
    return [request.get_json()["text"] for request, response in receiver.log if response.status_code == 200]


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """The log, without that of the receiver."""
    return "\n".join(item.getMessage() for item in caplog.records if item.name != "werkzeug")


def test_message_is_sent_once_and_escaped_for_slack(ops: psycopg.Connection, receiver: HTTPServer) -> None:
    receiver.expect_oneshot_request(URL, "POST", json={"text": "STALE: table0 &lt;&amp;&gt;"}).respond_with_data("ok")
    notify(alert())
    assert deliver() == 0
    receiver.check()
    assert unsent(ops) == []


def test_alert_without_a_webhook_is_stored(ops: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_ALERTS_WEBHOOK", raising=False)
    notify(alert())
    assert [one.subject for one in open_alerts()] == ["table0"]
    assert unsent(ops) == [(0, None)]


def test_receiver_after_an_outage_gets_each_message_once_in_order(
    ops: psycopg.Connection, receiver: HTTPServer, caplog: pytest.LogCaptureFixture
) -> None:
    notify(alert(0))
    resolve(open_alerts()[0], "RECOVERED: table0")
    notify(alert(1))
    assert unsent(ops) == [(1, "HTTP 500"), (0, None), (1, "HTTP 500")]
    assert deliver() == 0, "the retry is not due"

    receiver.expect_request(URL).respond_with_data("ok")
    retry_now(ops)
    assert deliver() == 3
    assert deliver() == 0
    assert accepted(receiver) == ["STALE: table0 &lt;&amp;&gt;", "RECOVERED: table0", "STALE: table1 &lt;&amp;&gt;"]
    assert PATH not in logged(caplog)


def test_rejected_message_does_not_block_the_next_one(ops: psycopg.Connection, receiver: HTTPServer) -> None:
    statuses = iter([400, 200])
    receiver.expect_request(URL).respond_with_handler(lambda _: Response(status=next(statuses)))
    raise_alert(alert(0))
    raise_alert(alert(1))
    assert deliver() == 0
    assert deliver() == 1
    assert unsent(ops) == [(1, "HTTP 400")]


def test_retries_back_off_to_five_minutes(ops: psycopg.Connection, receiver: HTTPServer) -> None:
    raise_alert(alert())
    waits = []
    for _ in range(9):
        retry_now(ops)
        deliver()
        query = "select round(extract(epoch from next_attempt_at - now())) from ops.alert_messages"
        waits += [int(seconds) for (seconds,) in ops.execute(query)]
    assert waits == pytest.approx([5, 10, 20, 40, 80, 160, 300, 300, 300], abs=1)


def test_redirect_is_not_followed(ops: psycopg.Connection, receiver: HTTPServer) -> None:
    location = receiver.url_for("/elsewhere")
    receiver.expect_request(URL).respond_with_data(status=307, headers={"Location": location})
    receiver.expect_request("/elsewhere").respond_with_data("ok")
    notify(alert())
    assert unsent(ops) == [(1, "HTTP 307")]


def test_message_to_an_n8n_that_is_starting_is_retried(ops: psycopg.Connection, receiver: HTTPServer) -> None:
    page = "n8n is starting up. Please wait"
    receiver.expect_oneshot_request(URL).respond_with_data(page, content_type="text/html; charset=utf-8")
    notify(alert())
    assert unsent(ops) == [(1, page)]
    receiver.expect_request(URL).respond_with_data("x" * len(page))
    retry_now(ops)
    assert deliver() == 1
    assert unsent(ops) == []


def test_receiver_that_hangs_or_is_down_times_out(
    ops: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(notifier, "HTTP_TIMEOUT", (0.2, 0.2))
    raise_alert(alert())
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        address = f"http://127.0.0.1:{hanging.getsockname()[1]}/{PATH}"
        monkeypatch.setenv("AIRFLOW_CONN_ALERTS_WEBHOOK", address)
        deliver()
        assert unsent(ops) == [(1, "ReadTimeout")]
    retry_now(ops)
    deliver()
    assert unsent(ops) == [(2, "ConnectionError")]
    assert PATH not in logged(caplog)
    rows = ops.execute("select alerts::text || message::text from ops.alerts, ops.alert_messages as message").fetchall()
    assert rows
    assert PATH not in str(rows)


def test_concurrent_deliveries_send_a_message_once(ops: psycopg.Connection, receiver: HTTPServer) -> None:
    arrived, respond = threading.Event(), threading.Event()

    def slow(_: object) -> Response:
        arrived.set()
        respond.wait(10)
        return Response("ok")

    receiver.expect_request(URL).respond_with_handler(slow)
    raise_alert(alert())
    with ThreadPoolExecutor() as threads:
        first = threads.submit(deliver)
        arrived.wait(10)
        assert deliver() == 0
        respond.set()
        assert first.result() == 1
    assert len(receiver.log) == 1


def test_message_older_than_a_day_is_not_sent(ops: psycopg.Connection, receiver: HTTPServer) -> None:
    receiver.expect_request(URL).respond_with_data("ok")
    raise_alert(alert())
    ops.execute("update ops.alert_messages set created_at = created_at - interval '25 hours'")
    assert deliver() == 0
    assert len(unsent(ops)) == 1


def test_database_down_logs_the_alert(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_OPS_DB", "postgresql://u:secret-word@127.0.0.1:1/ops?connect_timeout=2")
    notify(alert())
    errors = [item.getMessage() for item in caplog.records if item.levelno == logging.ERROR]
    assert "STALE: table0" in errors[0]
    assert "was not stored" in errors[1]
    assert "secret-word" not in caplog.text


@pytest.mark.parametrize(
    ("connection", "url"),
    [
        ({"host": "https://hooks.slack.com/services", "password": "T/B/x"}, "https://hooks.slack.com/services/T/B/x"),
        ({"host": "hooks.slack.com", "password": "/services/T"}, "https://hooks.slack.com/services/T"),
        (
            {"host": "https://hooks.slack.com/services", "password": " T/B/x\n"},
            "https://hooks.slack.com/services/T/B/x",
        ),
        ({"host": "chat", "schema": "http", "port": 8065, "password": "hooks/x"}, "http://chat:8065/hooks/x"),
        ({"host": "https://chat/hooks", "port": 8443, "password": "x"}, "https://chat:8443/hooks/x"),
        ({"host": "https://chat:8443/hooks/", "password": "x"}, "https://chat:8443/hooks/x"),
        ({"uri": "https://hooks.slack.com/services/T/B/x"}, "https://hooks.slack.com/services/T/B/x"),
        ({"uri": "http://chat:8065/hooks/x"}, "http://chat:8065/hooks/x"),
    ],
)
def test_url_of_the_receiver(connection: dict[str, Any], url: str) -> None:
    if "uri" in connection:
        assert webhook_url(Connection.from_uri(connection["uri"], "alerts_webhook")) == url
    else:
        assert webhook_url(Connection(conn_id="alerts_webhook", conn_type="http", **connection)) == url


@pytest.mark.parametrize(
    ("host", "message"),
    [(None, "alerts_webhook has no host"), ("https://chat:port/x", "alerts_webhook is no valid URL")],
)
def test_connection_without_a_valid_host_is_refused(host: str | None, message: str) -> None:
    with pytest.raises(PermanentError, match=message):
        webhook_url(Connection(conn_id="alerts_webhook", conn_type="http", host=host))


RUN = "scheduled__2026-11-16T01:00:00+00:00"
LINK = "/dags/job/runs/scheduled__2026-11-16T01%3A00%3A00%2B00%3A00"


def failed_run(
    states: dict[str, str], noted: dict[tuple[str, int], PermanentError | TransientError], **different: Any
) -> Any:
    """Airflow's context of the callback of a run, with the tasks plan, work (three instances), and finish."""
    with DAG("job", schedule=None) as dag:
        plan, finish = BaseOperator(task_id="plan"), BaseOperator(task_id="finish", trigger_rule="all_done")
        work = BaseOperator.partial(task_id="work").expand(doc=["a", "b", "c"])
        plan >> work >> finish
    kept: dict[tuple[str, int, str], Any] = {}

    def instance(task_id: str, map_index: int = -1) -> Any:
        return SimpleNamespace(
            dag_id="job",
            task_id=task_id,
            run_id=RUN,
            map_index=map_index,
            try_number=3,
            xcom_push=lambda key, value: kept.update({(task_id, map_index, key): value}),
            xcom_pull=lambda task_ids, key, map_indexes: kept.get((task_ids, map_indexes, key)),
            get_task_states=lambda **_: {RUN: states},
        )

    for (task_id, map_index), error in noted.items():
        failures.store({"ti": instance(task_id, map_index)}, error)
    run = {
        "run_after": SINCE.replace(hour=1),
        "end_date": SINCE,
        "run_type": "scheduled",
        "clear_number": 0,
        "data_interval_start": SINCE.replace(day=15, hour=0),
        "data_interval_end": SINCE.replace(hour=0),
        **different,
    }
    return {"dag": dag, "run_id": RUN, "dag_run": SimpleNamespace(**run), "ti": instance("finish")}


BEGIN = "CRITICAL FAILED: job (window 2026-11-15 00:00 to 2026-11-16 00:00 UTC) failed at 2026-11-16 02:00 UTC."
CLEAR = f"Next step: fix the cause, then clear run {RUN}, due 2026-11-16 01:00 UTC."


@pytest.mark.parametrize(
    ("states", "noted", "reason"),
    [
        (
            {"plan": "failed", "work": "upstream_failed", "finish": "failed"},
            {
                ("plan", -1): PermanentError("Connection 'market_db' is unknown. Create it in Airflow."),
                ("finish", -1): PermanentError("A task of this run failed."),
            },
            "Task plan failed with a permanent error, which is not retried: Connection 'market_db' is unknown.",
        ),
        (
            {"plan": "success", "work_0": "success", "work_1": "failed", "work_2": "failed", "finish": "success"},
            {("work", 1): TransientError("PostgreSQL is\nbusy. Try again later.")},
            "Task work (2 instances) failed after try 3: PostgreSQL is busy.",
        ),
        ({"plan": "failed"}, {}, "Task plan ended without an error, as after a kill."),
        (
            {"finish": "failed"},
            {("finish", -1): ValueError("row 42 of secret-word")},
            "Task finish failed with a permanent error, which is not retried: ValueError (its text is in the log of the task).",  # noqa: E501
        ),
    ],
)
def test_failed_run_names_its_first_failed_task_and_the_reason(
    ops: psycopg.Connection, states: dict[str, str], noted: dict[tuple[str, int], Any], reason: str
) -> None:
    notify_failed(failed_run(states, noted))
    (found,) = open_alerts()
    assert (found.kind, found.subject, found.since, found.members) == (Kind.FAILED, "job", SINCE, (RUN,))
    ((text,),) = ops.execute("select text from ops.alerts").fetchall()
    assert text == f"{BEGIN} {reason} {CLEAR} {LINK}"


def test_failed_run_with_only_its_id_known_is_reported(ops: psycopg.Connection) -> None:
    notify_failed(cast("Context", {"dag": SimpleNamespace(dag_id="job"), "run_id": RUN}))
    ((text,),) = ops.execute("select text from ops.alerts").fetchall()
    assert text.startswith("CRITICAL FAILED: job failed at ")
    assert text.endswith(f"UTC. Next step: fix the cause, then clear run {RUN}. {LINK}")


def test_failed_run_is_reported_when_its_failure_cannot_be_read(ops: psycopg.Connection) -> None:
    context = failed_run({}, {})
    context["ti"].get_task_states = None
    notify_failed(context)
    ((text,),) = ops.execute("select text from ops.alerts").fetchall()
    assert text == f"{BEGIN} Task finish failed. Its log has the error. {CLEAR} {LINK}"


def test_failed_ohlcv_run_needs_a_clear_only_if_it_was_cleared(ops: psycopg.Connection) -> None:
    for clears, next_step in (
        (0, f"Next step: none if the next run succeeds, it includes the work of run {RUN}, due"),
        (1, "Next step: fix the cause, then"),
    ):
        context = failed_run({"plan": "failed"}, {}, clear_number=clears)
        context["dag"].dag_id = "ohlcv_aggregation"
        notify_failed(context)
        ((text,),) = ops.execute("select text from ops.alerts where settled_at is null").fetchall()
        assert next_step in text
        resolve(open_alerts()[0], None)


@pytest.mark.parametrize(("run_type", "alerts"), [("manual", 0), ("scheduled", 1)])
def test_wrong_params_of_a_manual_run_raise_no_alert(ops: psycopg.Connection, run_type: str, alerts: int) -> None:
    noted: dict[tuple[str, int], Any] = {("plan", -1): WrongParamsError("startDate: a day is written YYYY-MM-DD.")}
    notify_failed(failed_run({"plan": "failed", "finish": "failed"}, noted, run_type=run_type))
    assert len(open_alerts()) == alerts


def test_secrets_backend_down_is_an_error_and_not_a_missing_webhook(
    ops: psycopg.Connection,
    no_metadata_database: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_ALERTS_WEBHOOK", raising=False)
    notify(alert())
    with pytest.raises(AggregatorError, match="MetastoreBackend failed"):
        deliver()
    assert unsent(ops) == [(0, None)]
    assert "The alert is stored but was not sent. The watch sends it later." in logged(caplog)


def test_timeouts_of_the_webhook_are_below_ten_seconds() -> None:
    connect, read = notifier.HTTP_TIMEOUT
    assert connect + read < 10
