"""The embedded server: what the local stack relies on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from dev import postgres as embedded

if TYPE_CHECKING:
    from dev.postgres import Postgres


def test_version_is_one_the_project_supports(connection: psycopg.Connection) -> None:
    assert connection.info.server_version >= 150000


@pytest.mark.slow
def test_committed_rows_survive_a_crash(own_postgres: Postgres) -> None:
    with psycopg.connect(own_postgres.url, autocommit=True) as connection:
        connection.execute("create table kept (n int)")
        connection.execute("insert into kept values (1)")
    own_postgres.restart("immediate")
    with psycopg.connect(own_postgres.url) as connection:
        assert connection.execute("select n from kept").fetchall() == [(1,)]


@pytest.mark.slow
def test_embedded_server_is_for_its_user_only(own_postgres: Postgres) -> None:
    with psycopg.connect(own_postgres.url) as connection:
        assert connection.execute("show listen_addresses").fetchone() == ("",)
    assert own_postgres.data
    assert (own_postgres.data / "log").stat().st_mode & 0o077 == 0


def test_existing_server_is_used_and_never_stopped(monkeypatch, postgres: Postgres, tmp_path) -> None:
    monkeypatch.setenv(embedded.EXISTING_SERVER, postgres.url)
    server = embedded.start(tmp_path / "data")
    server.stop()
    with psycopg.connect(server.url) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    with pytest.raises(RuntimeError, match="not ours to restart"):
        server.restart()
