"""Properties of the embedded server that the local stack needs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest

from dev import postgres as embedded
from tests.conftest import folder_for_postgres

if TYPE_CHECKING:
    from dev.postgres import Postgres


def test_version_is_supported(connection: psycopg.Connection) -> None:
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
def test_server_stops_although_a_session_ends_late(own_postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_postgres.data is not None
    monkeypatch.setenv("PGCTLTIMEOUT", "1")
    with psycopg.connect(own_postgres.url) as connection:
        session = psutil.Process(connection.info.backend_pid)
        session.suspend()
        Timer(3, session.resume).start()
        own_postgres.stop()
    assert not (own_postgres.data / "postmaster.pid").exists()


def test_embedded_server_accepts_its_user_only(own_postgres: Postgres) -> None:
    with psycopg.connect(own_postgres.url) as connection:
        assert connection.execute("show listen_addresses").fetchone() == ("",)
    assert own_postgres.data
    assert (own_postgres.data / "log").stat().st_mode & 0o077 == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["with a space, a % and a 'quote'", "x" * 120])
def test_path_that_no_socket_can_have_works(tmp_path: Path, name: str) -> None:
    with folder_for_postgres() as folder:
        (folder / name).mkdir()
        server = embedded.start_embedded(folder / name / "data", durable=False)
        try:
            again = embedded.start_embedded(folder / name / "data", durable=False)
            with psycopg.connect(again.url_of("postgres")) as connection:
                assert connection.execute("select 1").fetchone() == (1,)
                sockets = Path(connection.info.host)
        finally:
            server.stop("immediate")
        assert not sockets.exists()


@pytest.mark.slow
def test_umask_077_works(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.umask(0o077)
    try:
        with folder_for_postgres() as folder:
            package = embedded.PROGRAMS.parents[1]
            for part in (package, package.with_name(f"{package.name}.libs")):
                shutil.copytree(part, folder / part.name, copy_function=_copy_for_its_owner)
                (folder / part.name).chmod(0o700)
            monkeypatch.setattr(embedded, "PROGRAMS", folder / embedded.PROGRAMS.relative_to(package.parent))
            server = embedded.start_embedded(folder / "data", durable=False)
            server.stop("immediate")
    finally:
        os.umask(before)


def _copy_for_its_owner(source: str, target: str) -> None:
    shutil.copyfile(source, target)
    Path(target).chmod(Path(source).stat().st_mode & 0o700)


@pytest.mark.slow
def test_locale_of_the_environment_has_no_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "xx_XX.ISO-8859-1")
    with folder_for_postgres() as folder:
        server = embedded.start_embedded(folder / "data", durable=False)
        try:
            with psycopg.connect(server.url) as connection:
                assert connection.execute("show server_encoding").fetchone() == ("UTF8",)
        finally:
            server.stop("immediate")


@pytest.mark.slow
def test_error_is_one_line_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    with folder_for_postgres() as folder:
        (folder / "data").mkdir()
        (folder / "data" / "a file").touch()
        with pytest.raises(
            embedded.PostgresError, match=r"initdb failed in .*: initdb: error: .* is not empty"
        ) as error:
            embedded.start_embedded(folder / "data")
        assert "\n" not in str(error.value)


def test_existing_server_is_used_and_not_stopped(
    monkeypatch: pytest.MonkeyPatch, postgres: Postgres, tmp_path: Path
) -> None:
    monkeypatch.setenv(embedded.EXISTING_SERVER, postgres.url)
    server = embedded.start(tmp_path / "data")
    server.stop()
    with psycopg.connect(server.url) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    with pytest.raises(RuntimeError, match="Cannot restart the server of"):
        server.restart()
