"""Alerts in the database: one open row for a kind and subject, and one message an hour."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aggregator.alerts.store import Alert, Kind, open_alerts, raise_alert, resolve

if TYPE_CHECKING:
    import psycopg

SINCE = datetime(2026, 11, 16, 2, tzinfo=UTC)


def failed(*runs: str, dag_id: str = "job") -> Alert:
    return Alert(Kind.FAILED, dag_id, SINCE, f"FAILED: {', '.join(runs)}", runs)


def messages(ops: psycopg.Connection) -> list[str]:
    return [text for (text,) in ops.execute("select text from ops.alert_messages order by id")]


def rows(ops: psycopg.Connection) -> list[tuple[Any, ...]]:
    query = "select kind, subject, members, text, settled_at is not null from ops.alerts order by id"
    return ops.execute(query).fetchall()


def test_same_alert_twice_is_one_row_and_one_message(ops: psycopg.Connection) -> None:
    assert raise_alert(failed("a"))
    assert not raise_alert(failed("a"))
    assert rows(ops) == [("failed", "job", ["a"], "FAILED: a", False)]
    assert messages(ops) == ["FAILED: a"]
    (alert,) = open_alerts()
    assert (alert.kind, alert.subject, alert.members, alert.since) == (Kind.FAILED, "job", ("a",), SINCE)


def test_new_members_write_one_message_an_hour(ops: psycopg.Connection) -> None:
    for day in range(30):
        raise_alert(failed(f"{day}"))
    assert messages(ops) == ["FAILED: 0"]
    assert len(open_alerts()[0].members) == 30

    ops.execute("update ops.alerts set told_at = told_at - interval '61 minutes'")
    assert not raise_alert(failed("29")), "nothing new"
    assert raise_alert(failed("30"))
    assert not raise_alert(failed("31"))
    assert messages(ops) == ["FAILED: 0", "FAILED: 30"]


def test_each_kind_and_subject_has_its_own_alert(ops: psycopg.Connection) -> None:
    raise_alert(failed("a"))
    raise_alert(failed("a", dag_id="other"))
    raise_alert(Alert(Kind.LATE, "job", SINCE, "LATE: a", ("a",)))
    assert len(messages(ops)) == len(open_alerts()) == 3


def test_resolved_alert_can_be_raised_again(ops: psycopg.Connection) -> None:
    raise_alert(failed("a"))
    (alert,) = open_alerts()
    assert resolve(alert, "RECOVERED")
    assert not resolve(alert, "RECOVERED")
    assert open_alerts() == []
    assert raise_alert(failed("a"))
    assert messages(ops) == ["FAILED: a", "RECOVERED", "FAILED: a"]


def test_alert_with_new_members_is_not_resolved(ops: psycopg.Connection) -> None:
    raise_alert(failed("a"))
    (alert,) = open_alerts()
    raise_alert(failed("b"))
    assert not resolve(alert, "RECOVERED")
    assert messages(ops) == ["FAILED: a"]


def test_alert_is_resolved_without_a_message(ops: psycopg.Connection) -> None:
    raise_alert(failed("a"))
    assert resolve(open_alerts()[0], None)
    assert messages(ops) == ["FAILED: a"]


def test_concurrent_alerts_are_one_row_with_all_members_and_one_message(ops: psycopg.Connection) -> None:
    with ThreadPoolExecutor(8) as threads:
        written = list(threads.map(lambda number: raise_alert(failed(f"{number % 4}")), range(16)))
    assert written.count(True) == len(messages(ops)) == 1
    (alert,) = open_alerts()
    assert sorted(alert.members) == ["0", "1", "2", "3"]
