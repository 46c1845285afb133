"""Behind PgBouncer in transaction mode: migrations, upserts, connections. `--pooler` puts other tests there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import psycopg
import pytest

from aggregator.core.errors import PermanentError
from aggregator.postgres.hook import PostgresTransactionHook
from aggregator.postgres.migrations import databases, migrate
from aggregator.postgres.upsert import Query, Rows, UpsertCounts, UpsertSpec, upsert

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MINUTE = timedelta(minutes=1)


@pytest.fixture
def pooled_url(database_url: str, pooler: Callable[[str], str]) -> str:
    return pooler(database_url)


def test_every_database_is_migrated_and_nothing_is_left_in_the_sessions(
    pooled_url: str, connection: psycopg.Connection
) -> None:
    for database in databases() * 3:
        migrate(partial(psycopg.connect, pooled_url), database)
    names = [name for (name,) in connection.execute("select distinct database from migrations.history").fetchall()]
    assert sorted(names) == databases()
    assert connection.execute("select count(*) from pg_locks where locktype = 'advisory'").fetchone() == (0,)
    with psycopg.connect(pooled_url, prepare_threshold=None) as pooled:
        assert pooled.execute("show lock_timeout").fetchone() == connection.execute("show lock_timeout").fetchone()
        assert pooled.execute("select count(*) from pg_prepared_statements").fetchone() == (0,)


def test_concurrent_migrations_wait_for_each_other(pooled_url: str, tmp_path: Path) -> None:
    (tmp_path / "shop/migrations").mkdir(parents=True)
    (tmp_path / "shop/migrations/0001_once.sql").write_text("create table public.once (); select pg_sleep(0.3);")
    with ThreadPoolExecutor(3) as threads:
        migrated = threads.map(lambda _: migrate(partial(psycopg.connect, pooled_url), "shop", tmp_path), range(3))
        reports = [report.migrations for report in migrated]
    assert sorted(reports) == [[], [], ["0001_once"]]


def test_upserts_dry_runs_and_isolation(
    pooled_url: str, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.execute("create table public.t (id int primary key, name text not null check (name <> 'no'))")
    monkeypatch.setenv("AIRFLOW_CONN_TEST_DB", pooled_url)
    spec = UpsertSpec("public.t", ["id"])
    rows = "select id, case id when 3 then 'no' else 'yes' end as name from generate_series(1, 5) as id"
    for _ in range(6):
        with PostgresTransactionHook("test_db").transaction(timeout=MINUTE) as cursor:
            assert upsert(cursor, spec, Rows(["id", "name"], [(0, "zero")])) is not None
            assert [refusal.group for refusal in upsert(cursor, spec, Query(rows, isolate_by="id")).refused] == ["3"]
            preview = upsert(cursor, spec, Query("select 9 as id, 'nine' as name"), dry_run=True)
            assert preview.counts == UpsertCounts(inserted=1)
    assert connection.execute("select array_agg(id order by id) from public.t").fetchone() == ([0, 1, 2, 4, 5],)


def test_options_are_refused_with_advice(pooled_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_TEST_DB", f"{pooled_url}?options=-c%20statement_timeout%3D5s")
    with (
        pytest.raises(PermanentError, match="Remove `options` from the extra of connection `test_db`"),
        PostgresTransactionHook("test_db").transaction(timeout=MINUTE),
    ):
        pytest.fail("PgBouncer takes no options")
