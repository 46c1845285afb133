"""What is sent, to whom, and how often: a receiver that is down, wrong or slow loses nothing and gets nothing twice."""

from __future__ import annotations

import logging
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import Connection
from werkzeug import Response

from aggregator.alerts import notifier
from aggregator.alerts.notifier import deliver, notify_failed, tell, webhook_url
from aggregator.alerts.store import Alert, Kind, open_alerts, raise_alert, settle
from aggregator.errors import HardError
from tests.alerts.conftest import PATH

if TYPE_CHECKING:
    import psycopg
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


def said(caplog: pytest.LogCaptureFixture) -> str:
    """What was logged, but for the receiver's own words."""
    return "\n".join(item.getMessage() for item in caplog.records if item.name != "werkzeug")


def test_message_is_sent_once_as_slack_takes_it(ops, receiver) -> None:
    receiver.expect_oneshot_request(URL, "POST", json={"text": "STALE: table0 &lt;&amp;&gt;"}).respond_with_data("ok")
    tell(alert())
    assert deliver() == 0
    receiver.check()
    assert unsent(ops) == []


def test_without_a_webhook_the_row_is_there(ops, monkeypatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_ALERTS_WEBHOOK", raising=False)
    tell(alert())
    assert [one.subject for one in open_alerts()] == ["table0"]
    assert unsent(ops) == [(0, None)]


def test_receiver_that_is_back_gets_everything_once_and_in_order(ops, receiver, caplog) -> None:
    tell(alert(0))
    settle(open_alerts()[0], "RECOVERED: table0")
    tell(alert(1))
    assert unsent(ops) == [(1, "HTTP 500"), (0, None), (1, "HTTP 500")]
    assert deliver() == 0, "not before its time"

    receiver.expect_request(URL).respond_with_data("ok")
    retry_now(ops)
    assert deliver() == 3
    assert deliver() == 0
    assert accepted(receiver) == ["STALE: table0 &lt;&amp;&gt;", "RECOVERED: table0", "STALE: table1 &lt;&amp;&gt;"]
    assert PATH not in said(caplog)


def test_message_that_is_refused_for_good_does_not_hold_up_the_others(ops, receiver) -> None:
    answers = iter([400, 200])
    receiver.expect_request(URL).respond_with_handler(lambda _: Response(status=next(answers)))
    raise_alert(alert(0))
    raise_alert(alert(1))
    assert deliver() == 0
    assert deliver() == 1
    assert unsent(ops) == [(1, "HTTP 400")]


def test_attempts_become_rare(ops, receiver) -> None:
    raise_alert(alert())
    waits = []
    for _ in range(9):
        retry_now(ops)
        deliver()
        query = "select round(extract(epoch from next_attempt_at - now())) from ops.alert_messages"
        waits.append(int(ops.execute(query).fetchone()[0]))
    assert waits == pytest.approx([5, 10, 20, 40, 80, 160, 300, 300, 300], abs=1)


def test_redirect_is_not_followed(ops, receiver) -> None:
    location = receiver.url_for("/elsewhere")
    receiver.expect_request(URL).respond_with_data(status=307, headers={"Location": location})
    receiver.expect_request("/elsewhere").respond_with_data("ok")
    tell(alert())
    assert unsent(ops) == [(1, "HTTP 307")]


def test_receiver_that_hangs_or_is_down_is_given_up_on(ops, monkeypatch, caplog) -> None:
    monkeypatch.setattr(notifier, "ANSWER_WITHIN", (0.2, 0.2))
    raise_alert(alert())
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        address = f"http://127.0.0.1:{hanging.getsockname()[1]}/{PATH}"
        monkeypatch.setenv("AIRFLOW_CONN_ALERTS_WEBHOOK", address)
        deliver()
        assert unsent(ops) == [(1, "ReadTimeout")]
    retry_now(ops)
    deliver()
    assert unsent(ops) == [(2, "ConnectionError")]
    assert PATH not in said(caplog)
    whole = ops.execute("select alerts::text || message::text from ops.alerts, ops.alert_messages as message")
    assert PATH not in whole.fetchone()[0]


def test_two_who_send_at_once_send_once(ops, receiver) -> None:
    arrived, answer = threading.Event(), threading.Event()

    def slow(_: object) -> Response:
        arrived.set()
        answer.wait(10)
        return Response("ok")

    receiver.expect_request(URL).respond_with_handler(slow)
    raise_alert(alert())
    with ThreadPoolExecutor() as threads:
        first = threads.submit(deliver)
        arrived.wait(10)
        assert deliver() == 0
        answer.set()
        assert first.result() == 1
    assert len(receiver.log) == 1


def test_news_of_yesterday_stays_in_the_table(ops, receiver) -> None:
    receiver.expect_request(URL).respond_with_data("ok")
    raise_alert(alert())
    ops.execute("update ops.alert_messages set created_at = created_at - interval '25 hours'")
    assert deliver() == 0
    assert len(unsent(ops)) == 1


def test_database_that_is_down_is_logged_with_the_alert(monkeypatch, caplog) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_OPS_DB", "postgresql://u:secret-word@127.0.0.1:1/ops?connect_timeout=2")
    tell(alert())
    said = [item.getMessage() for item in caplog.records if item.levelno == logging.ERROR]
    assert "STALE: table0" in said[0]
    assert "could not be stored" in said[1]
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
def test_address_of_the_receiver(connection: dict[str, Any], url: str) -> None:
    if "uri" in connection:
        assert webhook_url(Connection.from_uri(connection["uri"], "alerts_webhook")) == url
    else:
        assert webhook_url(Connection(conn_id="alerts_webhook", conn_type="http", **connection)) == url


@pytest.mark.parametrize(
    ("host", "said"), [(None, "alerts_webhook has no host"), ("https://chat:port/x", "alerts_webhook is no address")]
)
def test_connection_without_a_host_is_named(host: str | None, said: str) -> None:
    with pytest.raises(HardError, match=said):
        webhook_url(Connection(conn_id="alerts_webhook", conn_type="http", host=host))


@pytest.mark.parametrize("known", [True, False])
def test_failed_run_is_told_of_whatever_is_known_of_it(ops, known: bool) -> None:
    context: Any = {"dag": SimpleNamespace(dag_id="click_rollups"), "run_id": "scheduled__2026-11-16T01:00:00+00:00"}
    if known:
        context["dag_run"] = SimpleNamespace(run_after=SINCE.replace(hour=1), end_date=SINCE)
        context["ti"] = SimpleNamespace(task_id="roll_up_clicks")
    notify_failed(context)
    (found,) = open_alerts()
    assert (found.kind, found.subject, found.members) == (Kind.FAILED, "click_rollups", (context["run_id"],))
    ((text,),) = ops.execute("select text from ops.alerts").fetchall()
    assert text.endswith("/dags/click_rollups/runs/scheduled__2026-11-16T01%3A00%3A00%2B00%3A00")
    assert ("failed in roll_up_clicks at 2026-11-16 02:00 UTC" in text) is known
    assert ("due 2026-11-16 01:00 UTC" in text) is known


def test_sending_holds_up_nobody_for_long() -> None:
    connect, read = notifier.ANSWER_WITHIN
    assert connect + read < 10
