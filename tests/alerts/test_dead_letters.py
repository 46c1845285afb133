"""Dead letters: written, resolved, listed, replayed, discarded, without secrets."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.cli import cli_parser

from aggregator.alerts.dead_letters import main, record, resolve
from aggregator.core.errors import PermanentError

if TYPE_CHECKING:
    import psycopg

DAG = "analytics_hourly_aggregation"
DUE = datetime(2026, 11, 16, 1, tzinfo=UTC)
SECRET = "value-that-must-not-show"


def failed(
    run_id: str, task_id: str | None, error: object = None, *, attempts: int = 6, ended: datetime | None = None
) -> Any:
    """Airflow's context of the callback of a task; without an error, that of a run, with or without its last task."""
    run = SimpleNamespace(run_type="scheduled", run_after=DUE, end_date=None if error else ended)
    context: Any = {"dag": SimpleNamespace(dag_id=DAG), "run_id": run_id, "dag_run": run}
    if task_id:
        context["ti"] = SimpleNamespace(
            dag_id=DAG, run_id=run_id, task_id=task_id, try_number=attempts, end_date=ended if error else None
        )
    if error:
        context["exception"] = error
    return context


def letters(ops: psycopg.Connection, columns: str = "error, attempts, failed_task_ids") -> list[tuple[Any, ...]]:
    return ops.execute(f"select {columns}, settled_at is not null from ops.dead_letters order by id").fetchall()


def test_letter_has_the_fields_of_the_queue(ops: psycopg.Connection) -> None:
    record(failed("scheduled__2026", "a", PermanentError("Table gone.")))
    columns = "type, scheduled_for, correlation_id, error, attempts, dag_id, run_id, failed_task_ids"
    assert letters(ops, columns) == [
        (
            "analytics.aggregate-hourly",
            DUE,
            f"{DAG}/scheduled__2026",
            "PermanentError: Table gone.",
            6,
            DAG,
            "scheduled__2026",
            ["a"],
            False,
        )
    ]


def test_foreign_error_is_stored_as_its_class_only(ops: psycopg.Connection, caplog: pytest.LogCaptureFixture) -> None:
    record(failed("r", "a", ValueError(SECRET)))
    assert letters(ops, "error") == [("ValueError", False)]
    ((row,),) = ops.execute("select dead_letters::text from ops.dead_letters").fetchall()
    assert SECRET not in row + caplog.text


def test_run_with_several_failures_has_one_letter(ops: psycopg.Connection) -> None:
    record(failed("r", "a", PermanentError("first"), attempts=6))
    record(failed("r", "b", PermanentError("second"), attempts=2))
    record(failed("r", "b"))
    assert letters(ops) == [("PermanentError: second", 6, ["a", "b"], False)]


def test_killed_task_has_a_letter_from_the_callback_of_the_run(ops: psycopg.Connection) -> None:
    record(failed("r", "a", attempts=6))
    assert letters(ops) == [(None, 6, ["a"], False)]


def test_run_without_a_known_task_has_a_letter(ops: psycopg.Connection) -> None:
    context = failed("r", None)
    del context["dag_run"]
    record(context)
    assert letters(ops, "scheduled_for, attempts, failed_task_ids") == [(None, 1, [], False)]
    record(failed("r", "a", PermanentError("told later")))
    assert letters(ops) == [("PermanentError: told later", 6, ["a"], False)]


def test_concurrent_callbacks_write_one_letter_with_the_error(ops: psycopg.Connection) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(record, [failed("r", "a", PermanentError("told")), *[failed("r", "a")] * 7]))
    assert letters(ops) == [("PermanentError: told", 6, ["a"], False)]


def test_letter_is_resolved_when_every_failed_task_succeeded(ops: psycopg.Connection) -> None:
    record(failed("r", "a", PermanentError("x")))
    record(failed("r", "b", PermanentError("y")))
    resolve(failed("r", "b", attempts=7))
    resolve(failed("r", "never failed", attempts=7))
    resolve(failed("another run", "a", attempts=7))
    assert letters(ops, "failed_task_ids") == [(["a"], False)]
    resolve(failed("r", "a", attempts=7))
    assert letters(ops, "failed_task_ids") == [([], True)]


def test_second_failure_reopens_the_letter(ops: psycopg.Connection) -> None:
    record(failed("r", "a", PermanentError("old")))
    resolve(failed("r", "a", attempts=7))
    record(failed("r", "a", attempts=8))
    assert letters(ops) == [(None, 8, ["a"], False)]


def test_late_callback_of_the_run_does_not_reopen_the_letter(ops: psycopg.Connection) -> None:
    ended = datetime.now(UTC) - timedelta(minutes=1)
    record(failed("r", "a", PermanentError("x"), ended=ended))
    resolve(failed("r", "a", attempts=7))
    record(failed("r", "a", ended=ended))
    assert letters(ops, "failed_at") == [(ended, True)]


def test_success_in_the_first_try_needs_no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_OPS_DB", raising=False)
    resolve(failed("r", "a", attempts=1))


def test_database_down_logs_the_letter_and_raises_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_OPS_DB", f"postgresql://u:{SECRET}@127.0.0.1:1/ops?connect_timeout=2")
    record(failed("r", "a", PermanentError("Table gone.")))
    resolve(failed("r", "a", attempts=7))
    errors = [item.getMessage() for item in caplog.records if item.levelno == logging.ERROR]
    assert len(errors) == 2
    assert "was not written: PostgreSQL cannot be reached by connection ops_db" in errors[0]
    assert "Table gone." in errors[0]
    assert SECRET not in caplog.text


def test_tenth_open_letter_is_logged_as_an_error(ops: psycopg.Connection, caplog: pytest.LogCaptureFixture) -> None:
    def alerts() -> list[str]:
        return [item.getMessage() for item in caplog.records if "DEAD LETTERS" in item.getMessage()]

    record(failed("settled", "a", PermanentError("x")))
    resolve(failed("settled", "a", attempts=7))
    for number in range(9):
        record(failed(f"r{number}", "a", PermanentError("x")))
        record(failed(f"r{number}", "a"))
    assert alerts() == []
    record(failed("r9", "a", PermanentError("x")))
    assert alerts() == ["DEAD LETTERS: failed runs wait for a replay. depth=10 limit=10"]


class TestCommand:
    def test_lists_open_letters(self, ops: psycopg.Connection, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["list"]) == 0
        assert capsys.readouterr().out == "No dead letters.\n"
        record(failed("r1", "a", PermanentError("Table [red]gone[/].")))
        record(failed("r2", "a"))
        record(failed("settled", "a"))
        resolve(failed("settled", "a", attempts=7))

        assert main(["list"]) == 0

        table = capsys.readouterr().out
        assert "analytics.aggregate-hourly" in table
        assert "2026-11-16 01:00" in table
        assert "[red]gone[/]" in table
        assert "killed" in table
        assert "settled" not in table

    @pytest.mark.parametrize(("ids", "cleared"), [([], ["r1", "--x y"]), (["--id", "2"], ["--x y"])])
    def test_replay_clears_the_failed_tasks_of_runs(
        self, ops: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, ids: list[str], cleared: list[str]
    ) -> None:
        calls: list[Any] = []
        parser = cli_parser.get_parser()
        monkeypatch.setattr(cli_parser, "get_parser", lambda: Recorder(parser, calls))
        record(failed("r1", "a"))
        record(failed("--x y", "a"))

        assert main(["replay", *ids]) == 0

        assert [(call.dag_id, call.run_id, call.only_failed, call.yes) for call in calls] == [
            (DAG, run_id, True, True) for run_id in cleared
        ]

    def test_replay_without_letters_prints_that(
        self, ops: psycopg.Connection, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["replay"]) == 0
        assert capsys.readouterr().out == "No dead letters.\n"

    def test_discard_resolves_letters_and_reports_unknown_ids(
        self, ops: psycopg.Connection, capsys: pytest.CaptureFixture[str]
    ) -> None:
        record(failed("r1", "a"))
        record(failed("r2", "a"))
        assert main(["discard", "--id", "1", "99"]) == 1
        assert capsys.readouterr() == ("1: discarded\n", "99: no open letter has this id\n")
        assert letters(ops, "failed_task_ids") == [([], True), (["a"], False)]
        with pytest.raises(SystemExit):
            main(["discard"])

    def test_database_down_prints_one_line(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_OPS_DB", "postgresql://u@127.0.0.1:1/ops?connect_timeout=2")
        assert main(["list"]) == 1
        assert "cannot be reached by connection ops_db" in capsys.readouterr().err


class Recorder:
    """Airflow's own parser. Its commands record their arguments instead of running."""

    def __init__(self, parser: Any, calls: list[Any]) -> None:
        self._parser = parser
        self._calls = calls

    def parse_args(self, arguments: list[str]) -> Any:
        given = self._parser.parse_args(arguments)
        assert given.func
        given.func = self._calls.append
        return given
