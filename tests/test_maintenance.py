"""The daily maintenance, on Airflow's own schema in PostgreSQL, real files and the tables of alerts."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from aggregator import maintenance
from aggregator.core.errors import TransientError
from dev.bench.maintenance import DAG, add_history, create, environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dev.postgres import Postgres

NOW = datetime(2026, 11, 16, tzinfo=UTC)
BEFORE = NOW - timedelta(days=90, hours=1)
HISTORY = ("dag_run", "task_instance", "xcom", "log")


@pytest.fixture
def airflow_database(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Libpq URL of an empty database of Airflow, which commands use."""
    name = f"test_{os.getpid()}_airflow"
    url = create(postgres, name)
    for key, value in environment(url).items():
        monkeypatch.setenv(key, value)
    yield url
    postgres.drop_database(name)


@pytest.fixture
def log_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIRFLOW__LOGGING__BASE_LOG_FOLDER", str(tmp_path / "logs"))
    return tmp_path / "logs"


def counts(url: str, where: str = "true") -> dict[str, int]:
    with psycopg.connect(url) as connection:
        queries = [f"select '{table}', count(*) from {table} where dag_id = '{DAG}' and {where}" for table in HISTORY]
        return dict(connection.execute(" union all ".join(queries)).fetchall())


@pytest.mark.slow
def test_year_of_runs_is_cut_to_the_retention(airflow_database: str) -> None:
    every = timedelta(hours=2)
    add_history(airflow_database, NOW - timedelta(days=365), NOW, every)
    add_history(airflow_database, NOW, NOW + every, every)
    runs = counts(airflow_database)["dag_run"]
    assert runs == 365 * 12 + 1
    maintenance.clean_airflow(BEFORE)
    # One every two hours: the first is 90 days before NOW, the last one is that of the interval after NOW.
    kept = 90 * 12 + 2
    assert counts(airflow_database) == {"dag_run": kept, "task_instance": 3 * kept, "xcom": 3 * kept, "log": 6 * kept}
    with psycopg.connect(airflow_database) as connection:
        assert connection.execute("select min(start_date) from dag_run").fetchone() == (NOW - timedelta(days=90),)
        archives = connection.execute("select count(*) from pg_class where relname like '%archive__%'").fetchone()
        assert archives == (0,)
    maintenance.clean_airflow(BEFORE)
    assert counts(airflow_database)["dag_run"] == kept
    # Without the last run, the scheduler would start from the first interval again.
    maintenance.clean_airflow(NOW + timedelta(days=400))
    assert counts(airflow_database)["dag_run"] == 1


@pytest.mark.slow
def test_database_that_is_down_is_a_transient_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql+psycopg2://someone@127.0.0.1:1/airflow")
    with pytest.raises(TransientError, match=r"`airflow db clean` failed\..*next try continues"):
        maintenance.clean_airflow(BEFORE)


def test_old_log_files_and_their_folders_are_deleted(log_folder: Path) -> None:
    limit = BEFORE.timestamp()
    paths = {
        name: log_folder / name for name in ("dag_id=a/run_id=1/1.log", "dag_id=a/run_id=2/1.log", "dag_id=b/1.log")
    }
    for path in paths.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a line")
    (log_folder / "new").mkdir()
    (log_folder / "latest").symlink_to(log_folder / "dag_id=a")
    old, *_ = paths
    for path in (paths[old], paths[old].parent):
        os.utime(path, (limit - 1, limit - 1))
    maintenance.clean_logs(BEFORE)
    left = {str(path.relative_to(log_folder)) for path in log_folder.rglob("*")}
    assert left == {
        *("dag_id=a", "dag_id=a/run_id=2", "dag_id=a/run_id=2/1.log", "dag_id=b", "dag_id=b/1.log", "latest", "new")
    }


def test_only_resolved_alerts_and_letters_are_deleted(ops: psycopg.Connection) -> None:
    for number, resolved in enumerate((None, BEFORE - timedelta(seconds=1), BEFORE)):
        ops.execute(
            "with alert as (insert into ops.alerts (kind, subject, members, since, text, settled_at)"
            " values ('late', %(subject)s, '{}', %(since)s, '', %(resolved)s) returning id)"
            " insert into ops.alert_messages (alert_id, text) select id, '' from alert",
            {"subject": f"{number}", "since": BEFORE - timedelta(days=900), "resolved": resolved},
        )
        ops.execute(
            "insert into ops.dead_letters (type, attempts, dag_id, run_id, failed_task_ids, settled_at)"
            " values ('', 1, 'a', %s, '{}', %s)",
            (str(number), resolved),
        )
    maintenance.clean_alerts(BEFORE)
    for table, key in (("alerts", "subject"), ("dead_letters", "run_id")):
        assert ops.execute(f"select {key} from ops.{table} order by 1").fetchall() == [("0",), ("2",)]
    assert ops.execute("select count(*) from ops.alert_messages").fetchone() == (2,)


def test_failed_step_is_reported_and_stops_no_other(
    log_folder: Path, monkeypatch: pytest.MonkeyPatch, ops: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    def clean_airflow(before: datetime) -> None:
        msg = "The database is down."
        raise TransientError(msg)

    monkeypatch.setattr(maintenance, "clean_airflow", clean_airflow)
    heartbeat = log_folder.parent / "heartbeat"
    with caplog.at_level("INFO"):
        assert maintenance.main(["--heartbeat", str(heartbeat)]) == 1
    assert "clean_airflow was not finished" in caplog.text
    assert "The database is down." in caplog.text
    assert "dead_letters=0" in caplog.text
    assert not heartbeat.exists()


def test_invalid_retention_deletes_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("AGGREGATOR_KEEP_DAYS", "7")
    assert not maintenance.clean()
    assert "AGGREGATOR_KEEP_DAYS" in caplog.text


def test_success_touches_the_heartbeat(
    log_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ops: psycopg.Connection
) -> None:
    monkeypatch.setattr(maintenance, "clean_airflow", print)
    assert maintenance.main(["--heartbeat", str(tmp_path / "heartbeat")]) == 0
    assert (tmp_path / "heartbeat").exists()
