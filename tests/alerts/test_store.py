"""Alerts as rows: one while it is open, a message now and then, none lost by two at once."""

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


def test_alert_is_one_row_and_one_message(ops) -> None:
    assert raise_alert(failed("a"))
    assert not raise_alert(failed("a"))
    assert rows(ops) == [("failed", "job", ["a"], "FAILED: a", False)]
    assert messages(ops) == ["FAILED: a"]
    (alert,) = open_alerts()
    assert (alert.kind, alert.subject, alert.members, alert.since) == (Kind.FAILED, "job", ("a",), SINCE)


def test_month_that_fails_is_told_of_once_an_hour(ops) -> None:
    for day in range(30):
        raise_alert(failed(f"{day}"))
    assert messages(ops) == ["FAILED: 0"]
    assert len(open_alerts()[0].members) == 30

    ops.execute("update ops.alerts set told_at = told_at - interval '61 minutes'")
    assert not raise_alert(failed("29")), "nothing new"
    assert raise_alert(failed("30"))
    assert not raise_alert(failed("31"))
    assert messages(ops) == ["FAILED: 0", "FAILED: 30"]


def test_kinds_and_subjects_have_an_alert_each(ops) -> None:
    raise_alert(failed("a"))
    raise_alert(failed("a", dag_id="other"))
    raise_alert(Alert(Kind.LATE, "job", SINCE, "LATE: a", ("a",)))
    assert len(messages(ops)) == len(open_alerts()) == 3


def test_settled_alert_is_raised_anew(ops) -> None:
    raise_alert(failed("a"))
    (alert,) = open_alerts()
    assert resolve(alert, "RECOVERED")
    assert not resolve(alert, "RECOVERED")
    assert open_alerts() == []
    assert raise_alert(failed("a"))
    assert messages(ops) == ["FAILED: a", "RECOVERED", "FAILED: a"]


def test_alert_that_got_members_meanwhile_stays_open(ops) -> None:
    raise_alert(failed("a"))
    (alert,) = open_alerts()
    raise_alert(failed("b"))
    assert not resolve(alert, "RECOVERED")
    assert messages(ops) == ["FAILED: a"]


def test_settled_without_a_word(ops) -> None:
    raise_alert(failed("a"))
    assert resolve(open_alerts()[0], None)
    assert messages(ops) == ["FAILED: a"]


def test_many_at_once_leave_one_row_with_all_members_and_one_message(ops) -> None:
    with ThreadPoolExecutor(8) as threads:
        told = list(threads.map(lambda number: raise_alert(failed(f"{number % 4}")), range(16)))
    assert told.count(True) == len(messages(ops)) == 1
    (alert,) = open_alerts()
    assert sorted(alert.members) == ["0", "1", "2", "3"]
