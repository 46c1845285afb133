"""What the watch raises and settles by what it finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aggregator.alerts import freshness, watch
from aggregator.alerts.freshness import TARGETS, Freshness, Lag, State
from aggregator.alerts.store import Alert, Kind, OpenAlert, open_alerts, raise_alert
from aggregator.dead_letters import TOO_MANY
from aggregator.errors import AggregatorError
from aggregator.migrations import databases
from tests.alerts.test_store import SINCE, messages

if TYPE_CHECKING:
    from collections.abc import Iterable

    import psycopg

CLICKS = next(target for target in TARGETS if target.dag_id == "click_rollups")


def kinds(ops: psycopg.Connection) -> list[tuple[str, bool]]:
    return ops.execute("select kind, settled_at is not null from ops.alerts order by id").fetchall()


@pytest.fixture
def runs(monkeypatch) -> dict[str, str]:
    """The states of Airflow's runs, by their ids."""
    states: dict[str, str] = {}

    def known(_: str, run_ids: Iterable[str]) -> dict[str, str]:
        return {run_id: states[run_id] for run_id in run_ids if run_id in states}

    monkeypatch.setattr(watch, "_states", known)
    return states


def about_runs(kind: Kind, *run_ids: str) -> None:
    raise_alert(Alert(kind, "click_rollups", SINCE, f"{kind}: {run_ids}", run_ids))


@pytest.mark.parametrize(
    ("kind", "state", "settled", "told"),
    [
        (Kind.FAILED, "failed", False, None),
        (Kind.FAILED, "queued", False, None),
        (Kind.FAILED, "running", False, None),
        (Kind.FAILED, "success", True, "RECOVERED: click_rollups has recovered. Run a has succeeded."),
        (Kind.FAILED, None, True, None),
        (Kind.LATE, "queued", False, None),
        (Kind.LATE, "running", False, None),
        (Kind.LATE, "success", True, "RECOVERED: click_rollups is no longer late. Run a has succeeded."),
        (Kind.LATE, "failed", True, None),
    ],
)
def test_alert_about_a_run_is_open_while_the_run_is_unwell(
    ops, runs, kind: Kind, state: str | None, settled: bool, told: str | None
) -> None:
    about_runs(kind, "a")
    if state:
        runs["a"] = state
    watch.settle_runs(open_alerts())
    assert kinds(ops) == [(kind, settled)]
    recovery = messages(ops)[1:]
    assert len(recovery) == (told is not None)
    assert all(text.startswith(told or "") and text.endswith("/dags/click_rollups/runs/a") for text in recovery)


def test_several_runs_have_recovered_when_all_have(ops, runs) -> None:
    about_runs(Kind.FAILED, "a", "b", "deleted")
    runs.update(a="success", b="failed")
    watch.settle_runs(open_alerts())
    assert kinds(ops) == [("failed", False)]
    runs["b"] = "success"
    watch.settle_runs(open_alerts())
    assert messages(ops)[1].startswith("RECOVERED: click_rollups has recovered. 3 runs have succeeded.")


def found(monkeypatch, state: State) -> None:
    one = Freshness(CLICKS, state, SINCE, SINCE)
    monkeypatch.setattr(freshness, "look", lambda: [one])


def test_stale_table_is_told_of_until_it_is_fresh(ops, monkeypatch) -> None:
    for state in (State.STALE, State.STALE, State.UNKNOWN, State.UNUSED, State.EMPTY):
        found(monkeypatch, state)
        watch.watch_freshness(open_alerts())
        assert kinds(ops) == [("stale", False)]
    found(monkeypatch, State.FRESH)
    watch.watch_freshness(open_alerts())
    assert kinds(ops) == [("stale", True)]
    stale, recovery = messages(ops)
    assert stale.startswith(
        "STALE: public.click_rollups has data up to 2026-11-16 02:00 UTC. What came after 2026-11-16 02:00 UTC should "
        "be in it 1 day, 2:00:00 later at most. "
    )
    assert recovery == "RECOVERED: public.click_rollups is fresh again. It was stale since 2026-11-17 04:00 UTC."


def test_stale_table_with_symbols_names_those_that_are_furthest_behind(ops, monkeypatch) -> None:
    lag = Lag(behind=1234, symbols=5000, worst=("A 15m", "B 1h", "C 1d"))
    monkeypatch.setattr(freshness, "look", lambda: [Freshness(CLICKS, State.STALE, SINCE, SINCE, lag)])
    watch.watch_freshness(open_alerts())
    (stale,) = messages(ops)
    assert "1,234 of 5,000 symbols are behind: A 15m, B 1h, C 1d and 1,231 more." in stale


def test_stale_table_that_is_paused_is_settled_without_a_word(ops, monkeypatch) -> None:
    for state in (State.STALE, State.PAUSED):
        found(monkeypatch, state)
        watch.watch_freshness(open_alerts())
    assert kinds(ops) == [("stale", True)]
    (stale,) = messages(ops)
    assert stale.startswith("STALE: ")


def test_table_of_which_nothing_is_known_is_not_told_of(ops, monkeypatch) -> None:
    for state in (State.UNKNOWN, State.EMPTY, State.PAUSED, State.UNUSED, State.FRESH):
        found(monkeypatch, state)
        watch.watch_freshness(open_alerts())
    assert kinds(ops) == []


def test_too_many_dead_letters_are_told_of_until_there_are_fewer(ops) -> None:
    insert = """
        insert into ops.dead_letters (type, attempts, dag_id, run_id, failed_task_ids)
        select 't', 1, 'd', n::text, '{}' from generate_series(1, %s) as n on conflict do nothing
    """
    ops.execute(insert, [TOO_MANY - 1])
    watch.watch_dead_letters(open_alerts())
    assert kinds(ops) == []
    ops.execute(insert, [TOO_MANY])
    watch.watch_dead_letters(open_alerts())
    watch.watch_dead_letters(open_alerts())
    assert kinds(ops) == [("dead_letters", False)]
    ops.execute("update ops.dead_letters set settled_at = now() where run_id = '1'")
    watch.watch_dead_letters(open_alerts())
    assert kinds(ops) == [("dead_letters", True)]
    assert messages(ops) == [
        "DEAD LETTERS: 10 runs have failed and wait for a replay: python -m aggregator.dead_letters list",
        "RECOVERED: fewer than 10 dead letters are open.",
    ]


def test_disabled_tasks_are_told_of_until_they_are_reset(ops, monkeypatch, database_url, connection) -> None:
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
    assert disabled.startswith("DISABLED: S1 15m, S2 15m, S3 15m, S4 15m, S5 15m and 2 more: bars are not built ")
    assert recovery == "RECOVERED: no OHLCV task is disabled any more."


def test_a_look_goes_on_where_something_cannot_be_looked_at(monkeypatch, caplog, tmp_path) -> None:
    called: list[str] = []

    def step(name: str, *, broken: bool = False) -> Any:
        def look(*_: object) -> None:
            called.append(name)
            if broken:
                msg = f"{name} is broken"
                raise AggregatorError(msg)

        return look

    monkeypatch.setattr(watch, "open_alerts", step("alerts"))
    monkeypatch.setattr(watch, "settle_runs", step("runs", broken=True))
    monkeypatch.setattr(watch, "watch_freshness", step("freshness", broken=True))
    monkeypatch.setattr(watch, "watch_dead_letters", step("letters"))
    monkeypatch.setattr(watch, "watch_disabled_tasks", step("tasks"))
    monkeypatch.setattr(watch, "deliver", step("deliver"))
    # The command sets it, if it is not, for all of its process.
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    heartbeat = tmp_path / "heartbeat"
    assert watch.main(["--once", "--heartbeat", str(heartbeat)]) == 0
    assert heartbeat.exists()
    assert called == ["alerts", "runs", "letters", "freshness", "tasks", "deliver"]
    called.clear()
    watch.look(at_data=False)
    assert called == ["alerts", "runs", "letters", "deliver"]
    assert "runs is broken" in caplog.text


def test_a_look_without_the_database_of_alerts_is_logged(monkeypatch, caplog) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_OPS_DB", "postgresql://u@127.0.0.1:1/ops?connect_timeout=2")
    watch.look()
    assert "This look was not finished: PostgreSQL cannot be reached by connection ops_db" in caplog.text


def test_a_look_reads_the_alerts_once_and_settles_those_of_every_kind(monkeypatch, ops, runs, database_url) -> None:
    def read() -> list[OpenAlert]:
        looks.append(1)
        return open_alerts()

    looks: list[int] = []
    monkeypatch.setattr(watch, "open_alerts", read)
    monkeypatch.setenv("AIRFLOW_CONN_MARKET_DB", database_url)
    about_runs(Kind.FAILED, "deleted")
    for kind, subject in ((Kind.STALE, CLICKS.table), (Kind.DEAD_LETTERS, "x"), (Kind.TASK_DISABLED, "x")):
        raise_alert(Alert(kind, subject, SINCE, "text"))
    found(monkeypatch, State.FRESH)
    watch.look()
    assert {settled for _, settled in kinds(ops)} == {True}
    assert len(looks) == 1


def test_everything_of_the_repository_is_well_when_it_is_new(runs, migrated) -> None:
    migrated(*databases())
    watch.look()
    assert open_alerts() == []
