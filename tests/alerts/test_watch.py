"""The alerts that the watch raises and resolves."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from aggregator.alerts import freshness, watch
from aggregator.alerts.dead_letters import ALERT_DEPTH
from aggregator.alerts.freshness import TARGETS, Freshness, Lag, State
from aggregator.alerts.messages import stale
from aggregator.alerts.notifier import notify_failed
from aggregator.alerts.store import Alert, Kind, OpenAlert, open_alerts, raise_alert, resolve
from aggregator.core.errors import AggregatorError
from aggregator.kpi.registry import VARIABLE
from aggregator.postgres.migrations import databases
from tests.alerts.test_store import SINCE, messages
from tests.kpi_data import entry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import psycopg
    from airflow.models.dagrun import DagRun
    from fastapi.testclient import TestClient

    from tests.alerts.conftest import AirflowRuns

CLICKS = next(target for target in TARGETS if target.dag_id == "click_rollups")


def kinds(ops: psycopg.Connection) -> list[tuple[str, bool]]:
    return ops.execute("select kind, settled_at is not null from ops.alerts order by id").fetchall()


def permanent(reason: str, **different: Any) -> dict[str, Any]:
    return {"reason": reason, "transient": False, "tries": 1, "wrong_params": False, **different}


def about_runs(kind: Kind, *run_ids: str, dag_id: str = "click_rollups") -> None:
    raise_alert(Alert(kind, dag_id, SINCE, f"{kind}: {run_ids}", run_ids))


@pytest.mark.parametrize(
    ("kind", "state", "resolved", "recovery"),
    [
        (Kind.FAILED, "failed", False, None),
        (Kind.FAILED, "queued", False, None),
        (Kind.FAILED, "running", False, None),
        (Kind.FAILED, "success", True, "RECOVERED: click_rollups has recovered. Run a succeeded."),
        (Kind.FAILED, None, True, None),
        (Kind.LATE, "queued", False, None),
        (Kind.LATE, "running", False, None),
        (Kind.LATE, "success", True, "RECOVERED: click_rollups is no longer late. Run a succeeded."),
        (Kind.LATE, "failed", True, None),
    ],
)
def test_alert_about_a_run_is_resolved_when_the_run_recovered(
    ops: psycopg.Connection, airflow: AirflowRuns, kind: Kind, state: str | None, resolved: bool, recovery: str | None
) -> None:
    about_runs(kind, "a")
    if state:
        airflow.run("a", state)
    watch.resolve_runs(open_alerts())
    assert kinds(ops) == [(kind, resolved)]
    texts = messages(ops)[1:]
    assert len(texts) == (recovery is not None)
    assert all(text.startswith(recovery or "") and text.endswith("/dags/click_rollups/runs/a") for text in texts)


def test_recovery_of_several_runs_counts_each_by_how_it_ended(
    ops: psycopg.Connection, airflow: AirflowRuns, airflow_api: TestClient
) -> None:
    about_runs(Kind.FAILED, "a", "b", "c", "deleted")
    airflow.run("a", "success")
    airflow.run("c", "failed")
    patch(airflow_api, "dagRuns/c", {"state": "success"})
    failed = airflow.run("b", "failed")
    watch.resolve_runs(open_alerts())
    assert kinds(ops) == [("failed", False)]
    patch(airflow_api, "dagRuns/b", {"note": "I am fixing this."})
    airflow.set_state(failed, "success")
    watch.resolve_runs(open_alerts())
    assert messages(ops)[1].startswith(
        "RECOVERED: click_rollups has recovered. 2 runs succeeded. Run c was marked as success: Airflow did not do its "
        "work. Check its data. Run deleted was deleted. The alert was open since 2026-11-16 02:00 UTC. "
    )


def patch(api: TestClient, path: str, body: dict[str, Any], *, dag_id: str = "click_rollups") -> None:
    """Change a run or a task, as the UI does."""
    response = api.patch(f"/api/v2/dags/{dag_id}/{path}", json=body)
    assert response.is_success, response.text


RUN = {"dag_run_id": "a", "state": "success"}
TASK = {"dag_id": "click_rollups", "dag_run_id": "a", "task_id": "group.work", "new_state": "success"}
MARKS: dict[str, tuple[str, dict[str, Any]]] = {
    "run": ("dagRuns/a", {"state": "success"}),
    "runs": ("dagRuns", {"actions": [{"action": "update", "entities": [RUN]}]}),
    "task": ("dagRuns/a/taskInstances/group.work", {"new_state": "success"}),
    "tasks": ("dagRuns/~/taskInstances", {"actions": [{"action": "update", "entities": [TASK]}]}),
    "task group": ("dagRuns/a/taskGroupInstances/group", {"new_state": "success"}),
}


@pytest.fixture(params=list(MARKS))
def marked_run(request: pytest.FixtureRequest, airflow: AirflowRuns, airflow_api: TestClient) -> DagRun:
    """A run that failed because its task was killed. One of the two was marked as success through Airflow's API."""
    about_runs(Kind.FAILED, "a")
    run = airflow.run("a", "failed")
    airflow.task(run, "group.work", "failed")
    patch(airflow_api, *MARKS[request.param])
    airflow.set_state(run, "success")
    return run


@pytest.mark.usefixtures("marked_run")
def test_run_marked_as_success_is_reported_as_marked(ops: psycopg.Connection) -> None:
    watch.resolve_runs(open_alerts())
    assert messages(ops)[1].startswith(
        "CLOSED: click_rollups has no open alert, but did not recover. Run a was marked as success: Airflow did not do "
        "its work. Check its data. The alert "
    )


def test_run_cleared_after_the_mark_has_succeeded(
    ops: psycopg.Connection, airflow: AirflowRuns, marked_run: DagRun
) -> None:
    assert marked_run.start_date
    airflow.date_audit_log(marked_run.start_date - timedelta(seconds=1))
    airflow.retry(marked_run)
    watch.resolve_runs(open_alerts())
    assert messages(ops)[1].startswith("RECOVERED: click_rollups has recovered. Run a succeeded.")


NOW = datetime.now(UTC)


def test_failed_ohlcv_run_recovers_with_a_later_success(ops: psycopg.Connection, airflow: AirflowRuns) -> None:
    dag_id = "ohlcv_aggregation"
    about_runs(Kind.FAILED, "a", dag_id=dag_id)
    airflow.run("a", "failed", dag_id=dag_id, ended=NOW - timedelta(minutes=20))
    watch.resolve_runs(open_alerts())
    assert kinds(ops) == [("failed", False)]
    airflow.run("b", "success", dag_id=dag_id, ended=NOW - timedelta(minutes=15))
    watch.resolve_runs(open_alerts())
    assert messages(ops)[1].startswith(
        "RECOVERED: ohlcv_aggregation has recovered. A later run did the work of run a. The alert was open since "
    )


@pytest.mark.parametrize(
    ("failed", "later"),
    [
        ({"dag_id": "click_rollups"}, {"dag_id": "click_rollups"}),
        ({"run_type": "manual"}, {}),
        ({"run_type": "backfill"}, {}),
        ({"clears": 1}, {}),
        ({}, {"run_type": "manual"}),
        ({}, {"due": NOW - timedelta(hours=1)}),
        ({}, {"ended": NOW - timedelta(minutes=19, seconds=30)}),
    ],
)
def test_alert_stays_open_when_no_later_run_did_the_work(
    ops: psycopg.Connection, airflow: AirflowRuns, failed: dict[str, Any], later: dict[str, Any]
) -> None:
    usual = {"dag_id": "ohlcv_aggregation"}
    airflow.run("a", "failed", **{**usual, "ended": NOW - timedelta(minutes=20), **failed})
    airflow.run("b", "success", **{**usual, "ended": NOW - timedelta(minutes=15), **later})
    about_runs(Kind.FAILED, "a", dag_id={**usual, **failed}["dag_id"])
    watch.resolve_runs(open_alerts())
    assert kinds(ops) == [("failed", False)]


def test_later_run_marked_as_success_does_not_resolve_the_alert(
    ops: psycopg.Connection, airflow: AirflowRuns, airflow_api: TestClient
) -> None:
    dag_id = "ohlcv_aggregation"
    about_runs(Kind.FAILED, "a", dag_id=dag_id)
    airflow.run("a", "failed", dag_id=dag_id, ended=NOW - timedelta(minutes=20))
    airflow.run("b", "failed", dag_id=dag_id, ended=NOW - timedelta(minutes=15))
    patch(airflow_api, "dagRuns/b", {"state": "success"}, dag_id=dag_id)
    watch.resolve_runs(open_alerts())
    assert kinds(ops) == [("failed", False)]


def test_missing_alert_of_a_failed_run_is_raised_with_the_first_failed_task(
    ops: psycopg.Connection, airflow: AirflowRuns
) -> None:
    run = airflow.run("a", "failed", due=datetime(2026, 11, 16, 1, tzinfo=UTC))
    airflow.task(run, "finish", "failed", permanent("A task of this run failed."))
    assert run.end_date
    first = run.end_date - timedelta(seconds=5)
    airflow.task(run, "plan", "failed", permanent("Connection 'market_db' is unknown."), ended=first)
    for _ in range(2):
        watch.raise_missing(open_alerts())
    ((kind, subject, members, since),) = ops.execute("select kind, subject, members, since from ops.alerts").fetchall()
    assert (kind, subject, members, since) == ("failed", "click_rollups", ["a"], run.end_date)
    (text,) = messages(ops)
    assert text.startswith("CRITICAL FAILED: click_rollups (window 2026-01-01 00:00 to 01:00 UTC) failed at ")
    assert (
        "Task plan failed with a permanent error, which is not retried: Connection 'market_db' is unknown. Billing "
        "reads public.click_rollups at 02:00 UTC and misses these clicks. Next step: fix the cause, then clear run a, "
        "due 2026-11-16 01:00 UTC. "
    ) in text


def test_missing_alerts_of_many_failed_runs_are_one_message_per_dag(
    ops: psycopg.Connection, airflow: AirflowRuns
) -> None:
    for number in range(30):
        airflow.run(f"{number}", "failed", run_type="backfill")
        airflow.run(f"{number}", "failed", dag_id="telemetry_daily", run_type="manual", clears=1)
    watch.raise_missing(open_alerts())
    assert sorted(text.split()[2] for text in messages(ops)) == ["click_rollups", "telemetry_daily"]
    assert [len(alert.members) for alert in open_alerts()] == [30, 30]


def test_failed_run_is_reported_once(ops: psycopg.Connection, airflow: AirflowRuns) -> None:
    about_runs(Kind.FAILED, "a")
    airflow.run("a", "failed")
    watch.raise_missing(open_alerts())
    resolve(open_alerts()[0], None)
    watch.raise_missing(open_alerts())
    assert len(messages(ops)) == 1


def test_recovered_run_that_fails_after_a_clear_is_reported_again(
    ops: psycopg.Connection, airflow: AirflowRuns
) -> None:
    about_runs(Kind.FAILED, "a")
    resolve(open_alerts()[0], None)
    ops.execute("update ops.alerts set settled_at = settled_at - interval '1 hour'")
    airflow.run("a", "failed", clears=1)
    watch.raise_missing(open_alerts())
    assert len(messages(ops)) == 2


@pytest.mark.parametrize(
    "reason", ["just now", "long ago", "before alerts", "marked", "redone", "wrong params", "foreign DAG", "success"]
)
def test_no_alert_is_raised_for_runs_that_need_none(
    ops: psycopg.Connection, airflow: AirflowRuns, airflow_api: TestClient, reason: str
) -> None:
    ended = {
        "just now": datetime.now(UTC),
        "long ago": NOW - watch.LOOK_BACK - timedelta(hours=1),
    }.get(reason, NOW - timedelta(minutes=20))
    dag_id = {"foreign DAG": "somebody_elses", "redone": "ohlcv_aggregation"}.get(reason, "telemetry_daily")
    run = airflow.run(
        "a",
        "success" if reason == "success" else "failed",
        dag_id=dag_id,
        ended=ended,
        run_type="manual" if reason == "wrong params" else "scheduled",
    )
    airflow.task(run, "group.work", "failed", permanent("startDate is wrong.", wrong_params=reason == "wrong params"))
    airflow.run("b", "success", dag_id=dag_id, ended=NOW - timedelta(minutes=15))
    if reason == "marked":
        patch(airflow_api, "dagRuns/a", {"state": "failed"}, dag_id=dag_id)
    if reason == "before alerts":
        ops.execute("update ops.alerts_begin set begins_at = %s", [ended + timedelta(minutes=1)])
    watch.raise_missing(open_alerts())
    assert messages(ops) == []


def test_missing_alert_of_a_late_run_is_raised_once(ops: psycopg.Connection, airflow: AirflowRuns) -> None:
    deadline = datetime.now(UTC) - timedelta(minutes=10)
    run = airflow.run("a", "running", due=datetime(2026, 11, 16, 1, tzinfo=UTC))
    airflow.deadline(run, deadline)
    for _ in range(2):
        watch.raise_missing(open_alerts())
    assert kinds(ops) == [("late", False)]
    (text,) = messages(ops)
    assert text.startswith(
        "WARNING LATE: click_rollups (window 2026-01-01 00:00 to 01:00 UTC) has not finished by its deadline, "
        f"{deadline:%Y-%m-%d %H:%M} UTC. Run a"
    )


@pytest.mark.parametrize("reason", ["in time", "just now", "long ago", "over", "cleared", "reported as failed"])
def test_no_late_alert_is_raised_for_runs_that_need_none(
    ops: psycopg.Connection, airflow: AirflowRuns, reason: str
) -> None:
    deadline = {
        "in time": NOW + timedelta(days=1),
        "just now": datetime.now(UTC),
        "long ago": NOW - watch.LOOK_BACK - timedelta(hours=1),
    }.get(reason, NOW - timedelta(minutes=10))
    run = airflow.run("a", "success" if reason == "over" else "running", clears=int(reason == "cleared"))
    airflow.deadline(run, deadline)
    if reason == "reported as failed":
        about_runs(Kind.FAILED, "a")
    before = messages(ops)
    watch.raise_missing(open_alerts())
    assert messages(ops) == before


def test_alert_that_was_not_stored_is_raised_after_the_outage(
    ops: psycopg.Connection, airflow: AirflowRuns, ops_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = airflow.run("a", "failed")
    monkeypatch.setenv("AIRFLOW_CONN_OPS_DB", "postgresql://u@127.0.0.1:1/ops?connect_timeout=2")
    context: Any = {"dag": SimpleNamespace(dag_id="click_rollups"), "run_id": "a", "dag_run": run}
    notify_failed(context)
    watch.check(with_data=False)
    monkeypatch.setenv("AIRFLOW_CONN_OPS_DB", ops_database_url)
    watch.check(with_data=False)
    assert [text.split(" failed at ")[0] for text in messages(ops)] == [
        "CRITICAL FAILED: click_rollups (window 2026-01-01 00:00 to 01:00 UTC)"
    ]


def found(monkeypatch: pytest.MonkeyPatch, state: State) -> None:
    one = Freshness(CLICKS, state, SINCE, SINCE)
    monkeypatch.setattr(freshness, "check", lambda: [one])


def test_stale_alert_is_open_until_the_table_is_fresh(ops: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    for state in (State.STALE, State.STALE, State.UNKNOWN, State.UNUSED, State.EMPTY):
        found(monkeypatch, state)
        watch.watch_freshness(open_alerts())
        assert kinds(ops) == [("stale", False)]
    found(monkeypatch, State.FRESH)
    watch.watch_freshness(open_alerts())
    assert kinds(ops) == [("stale", True)]
    alert, recovery = messages(ops)
    assert alert.startswith(
        "CRITICAL STALE: public.click_rollups ends at 2026-11-16 02:00; clicks since then were due in it by "
    )
    assert recovery == "RECOVERED: public.click_rollups is fresh again. It was stale since 2026-11-17 04:00 UTC."


def test_stale_text_names_the_worst_symbols(ops: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    lag = Lag(behind=1234, symbols=5000, worst=("A 15m", "B 1h", "C 1d"))
    monkeypatch.setattr(freshness, "check", lambda: [Freshness(CLICKS, State.STALE, SINCE, SINCE, lag)])
    watch.watch_freshness(open_alerts())
    (text,) = messages(ops)
    assert "1,234 of 5,000 symbols are behind: A 15m, B 1h, C 1d, and 1,231 more." in text


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-11-{text}+00:00")


@pytest.mark.parametrize(
    ("table", "newest", "waiting_since", "now", "text"),
    [
        (
            "ohlcv.bars",
            "16 19:15",
            "16 19:15",
            "16 19:40",
            "ohlcv.bars ends at 19:15; candles since then were due in it by 19:31, now it is 19:40 UTC. Readers ",
        ),
        (
            "ohlcv.candles",
            "12 08:00",
            "12 08:00",
            "16 08:01",
            (
                "ohlcv.candles ends at 2026-11-12 08:00; candles since then were due by 2026-11-16 08:00, now it is "
                "2026-11-16 08:01 UTC. Readers of ohlcv.bars get outdated bars. Next step: check the feed that writes "
                "ohlcv.candles. "
            ),
        ),
        (
            "public.telemetry_daily",
            "12 00:00",
            "13 00:00",
            "14 04:00",
            (
                "public.telemetry_daily ends at 2026-11-12 00:00; events since 2026-11-13 00:00 were due in it by "
                "2026-11-14 02:00, now it is 2026-11-14 04:00 UTC. public.telemetry_daily lacks these events. Next "
                "step: check that the scheduler is running and that telemetry_daily is not paused. "
            ),
        ),
    ],
)
def test_stale_text_has_end_deadline_impact_and_next_step(
    table: str, newest: str, waiting_since: str, now: str, text: str
) -> None:
    target = next(target for target in TARGETS if target.table == table)
    found = Freshness(target, State.STALE, at(newest), at(waiting_since))
    assert stale(found, at(now)).startswith(f"CRITICAL STALE: {text}")


def test_stale_text_exists_for_every_target() -> None:
    for target in TARGETS:
        assert stale(Freshness(target, State.STALE, SINCE, SINCE), SINCE)


def test_stale_alert_of_a_paused_table_is_resolved_without_a_message(
    ops: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for state in (State.STALE, State.PAUSED):
        found(monkeypatch, state)
        watch.watch_freshness(open_alerts())
    assert kinds(ops) == [("stale", True)]
    (text,) = messages(ops)
    assert text.startswith("CRITICAL STALE: ")


def test_table_that_is_not_stale_raises_no_alert(ops: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    for state in (State.UNKNOWN, State.EMPTY, State.PAUSED, State.UNUSED, State.FRESH):
        found(monkeypatch, state)
        watch.watch_freshness(open_alerts())
    assert kinds(ops) == []


def test_dead_letter_alert_is_open_until_fewer_are_open(ops: psycopg.Connection) -> None:
    since = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    insert = """
        insert into ops.dead_letters (type, attempts, dag_id, run_id, failed_task_ids)
        select 't', 1, 'd', n::text, '{}' from generate_series(1, %s) as n on conflict do nothing
    """
    ops.execute(insert, [ALERT_DEPTH - 1])
    watch.watch_dead_letters(open_alerts())
    assert kinds(ops) == []
    ops.execute(insert, [ALERT_DEPTH])
    watch.watch_dead_letters(open_alerts())
    watch.watch_dead_letters(open_alerts())
    assert kinds(ops) == [("dead_letters", False)]
    ops.execute("update ops.dead_letters set settled_at = now() where run_id = '1'")
    watch.watch_dead_letters(open_alerts())
    assert kinds(ops) == [("dead_letters", True)]
    assert messages(ops) == [
        (
            "WARNING DEAD LETTERS: 10 failed runs of the analytics suite were not re-run, the oldest failed at "
            f"{since}. Their tables lack data. Next step: list them with: python -m aggregator.alerts.dead_letters list"
        ),
        "RECOVERED: fewer than 10 dead letters are open.",
    ]


def test_disabled_task_alert_is_open_until_a_reset(
    ops: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, database_url: str, connection: psycopg.Connection
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_MARKET_DB", raising=False)
    watch.watch_disabled_tasks(open_alerts())
    monkeypatch.setenv("AIRFLOW_CONN_MARKET_DB", database_url)
    watch.watch_disabled_tasks(open_alerts())
    assert kinds(ops) == []
    connection.execute(
        "create schema ohlcv;"
        "create table ohlcv.tasks (symbol text, timeframe text, status text, last_attempt_at timestamptz);"
        "insert into ohlcv.tasks select 'S' || n, '15m', 'disabled', now() - n * interval '1 s' "
        "from generate_series(1, 7) as n; insert into ohlcv.tasks values ('fine', '1h', 'idle', now())"
    )
    watch.watch_disabled_tasks(open_alerts())
    watch.watch_disabled_tasks(open_alerts())
    assert kinds(ops) == [("task_disabled", False)]
    assert len(open_alerts()[0].members) == 7
    connection.execute("update ohlcv.tasks set status = 'idle'")
    watch.watch_disabled_tasks(open_alerts())
    assert kinds(ops) == [("task_disabled", True)]
    disabled, recovery = messages(ops)
    assert disabled.startswith(
        "CRITICAL DISABLED: OHLCV tasks S1 15m, S2 15m, S3 15m, S4 15m, S5 15m, and 2 more: disabled after repeated "
    )
    assert recovery == "RECOVERED: no OHLCV task is disabled."


def test_check_continues_after_a_failed_step(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    called: list[str] = []

    def step(name: str, *, broken: bool = False) -> Any:
        def run_step(*_: object) -> None:
            called.append(name)
            if broken:
                msg = f"{name} is broken"
                raise AggregatorError(msg)

        return run_step

    monkeypatch.setattr(watch, "open_alerts", step("alerts"))
    monkeypatch.setattr(watch, "raise_missing", step("missing"))
    monkeypatch.setattr(watch, "resolve_runs", step("runs", broken=True))
    monkeypatch.setattr(watch, "watch_freshness", step("freshness", broken=True))
    monkeypatch.setattr(watch, "watch_dead_letters", step("letters"))
    monkeypatch.setattr(watch, "watch_disabled_tasks", step("tasks"))
    monkeypatch.setattr(watch, "deliver", step("deliver"))
    # Otherwise the command sets it for the whole process.
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    heartbeat = tmp_path / "heartbeat"
    assert watch.main(["--once", "--heartbeat", str(heartbeat)]) == 0
    assert heartbeat.exists()
    assert called == ["alerts", "missing", "runs", "letters", "freshness", "tasks", "deliver"]
    called.clear()
    watch.check(with_data=False)
    assert called == ["alerts", "missing", "runs", "letters", "deliver"]
    assert "runs is broken" in caplog.text


def test_check_without_the_alert_database_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_OPS_DB", "postgresql://u@127.0.0.1:1/ops?connect_timeout=2")
    watch.check()
    assert "This check was not finished: PostgreSQL cannot be reached by connection ops_db" in caplog.text


def test_check_reads_alerts_once_and_resolves_every_kind(
    monkeypatch: pytest.MonkeyPatch, ops: psycopg.Connection, airflow: AirflowRuns, database_url: str
) -> None:
    def read() -> list[OpenAlert]:
        reads.append(1)
        return open_alerts()

    reads: list[int] = []
    monkeypatch.setattr(watch, "open_alerts", read)
    monkeypatch.setenv("AIRFLOW_CONN_MARKET_DB", database_url)
    about_runs(Kind.FAILED, "deleted")
    for kind, subject in ((Kind.STALE, CLICKS.table), (Kind.DEAD_LETTERS, "x"), (Kind.TASK_DISABLED, "x")):
        raise_alert(Alert(kind, subject, SINCE, "text"))
    found(monkeypatch, State.FRESH)
    watch.check()
    assert {resolved for _, resolved in kinds(ops)} == {True}
    assert len(reads) == 1


def test_empty_databases_raise_no_alert(airflow: AirflowRuns, migrated: Callable[..., psycopg.Connection]) -> None:
    migrated(*databases())
    watch.check()
    assert open_alerts() == []


def test_invalid_kpis_are_an_alert_until_the_registry_is_valid(
    ops: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(*entries: Any) -> None:
        monkeypatch.setenv("AIRFLOW_VAR_KPI-REGISTRY", json.dumps({"kpis": entries}))
        watch.watch_kpi_registry(open_alerts())

    check(entry("a"))
    assert kinds(ops) == []
    check(entry("a"), entry("b", webhookUrl="ftp://secret-word"))
    check(entry("a"), entry("b", webhookUrl="ftp://secret-word"))
    assert kinds(ops) == [("kpi_registry", False)]
    monkeypatch.setenv("AIRFLOW_VAR_KPI-REGISTRY", "{")
    watch.watch_kpi_registry(open_alerts())
    assert kinds(ops) == [("kpi_registry", False)]
    check(entry("a"), entry("b", active=False, webhookUrl="ftp://secret-word"))
    assert kinds(ops) == [("kpi_registry", True)]
    invalid, recovery = messages(ops)
    assert invalid.startswith(
        "CRITICAL REGISTRY: entries of the KPI registry are invalid: b (webhookUrl: URL scheme should be 'http' or "
        "'https'). kpi_dispatch does not send them, and sends no earlier version instead. Next step: "
    )
    assert "secret-word" not in invalid
    assert recovery == "RECOVERED: every active entry of the KPI registry is valid."


@pytest.mark.usefixtures("ops", "metadata_database")
def test_missing_kpi_registry_is_no_alert(ops: psycopg.Connection) -> None:
    about_runs(Kind.KPI_REGISTRY, "b", dag_id=VARIABLE)
    watch.watch_kpi_registry(open_alerts())
    assert kinds(ops) == [("kpi_registry", False)]
