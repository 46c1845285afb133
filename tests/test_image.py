"""The scripts of the image: the entry point, with hostile passwords, and the health check, with real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg import pq

from deploy.image import entrypoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRETS = ("AIRFLOW_FERNET_KEY", "AIRFLOW_JWT_SECRET", "AIRFLOW_SECRET_KEY", "POSTGRES_PASSWORD", "REDIS_PASSWORD")
HOSTILE = r"""p:a\s/@#?%41%s "x' $HOME {é}"""
READ = """
from airflow.configuration import conf
from kombu import Connection
from psycopg import pq
print(conf.get("core", "fernet_key"), conf.get("api", "secret_key"), conf.get("api_auth", "jwt_secret"), sep="\\n")
print(Connection(conf.get("celery", "broker_url")).password)
url = b"host=postgres hostaddr=127.0.0.1 port=1 user=airflow dbname=products"
print(pq.PGconn.connect_start(url).password.decode())
"""


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    files = {"AIRFLOW_CONFIG": str(tmp_path / "run" / "airflow.cfg"), "PGPASSFILE": str(tmp_path / "run" / "pgpass")}
    return {**os.environ, **files, **dict.fromkeys(SECRETS, HOSTILE)}


@pytest.mark.slow
def test_airflow_celery_and_libpq_get_every_character_of_the_secrets(
    repository: Path, variables: dict[str, str], tmp_path: Path
) -> None:
    script = repository / "deploy" / "image" / "entrypoint.py"
    command = [sys.executable, str(script), sys.executable, "-c", READ]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    home = os.environ["HOME"]
    # Airflow expands variables in each value of its configuration; a key with one is the same key in all containers.
    key = HOSTILE.replace("$HOME", home)
    assert done.stdout.splitlines() == [key, key, key, HOSTILE, HOSTILE]
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "run").iterdir()} == {0o600}


@example("\\")
@example(":")
@example("#")
@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1))
def test_libpq_reads_any_password_of_one_line(tmp_path_factory: pytest.TempPathFactory, password: str) -> None:
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        for name in SECRETS:
            patch.setenv(name, password)
        patch.setenv("AIRFLOW_CONFIG", str(folder / "airflow.cfg"))
        patch.setenv("PGPASSFILE", str(folder / "pgpass"))
        entrypoint.configure(folder / "none")
        url = b"host=postgres hostaddr=127.0.0.1 port=1 user=airflow dbname=airflow"
        assert pq.PGconn.connect_start(url).password == password.encode()


def test_file_replaces_the_variable(variables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_PASSWORD", "/path/of/the/file")
    (tmp_path / "REDIS_PASSWORD").write_text("from the file\n")
    assert entrypoint.secret("REDIS_PASSWORD", tmp_path) == "from the file"
    (tmp_path / "REDIS_PASSWORD").write_text("")
    assert entrypoint.secret("REDIS_PASSWORD", tmp_path) == "/path/of/the/file"


@pytest.mark.parametrize(("value", "problem"), [("", "is missing"), ("two\nlines", "is not one line")])
def test_unusable_secret_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, problem: str
) -> None:
    monkeypatch.setenv("REDIS_PASSWORD", value)
    with pytest.raises(SystemExit, match=f"^REDIS_PASSWORD {problem}. Nothing was started"):
        entrypoint.secret("REDIS_PASSWORD", tmp_path)


@contextmanager
def container() -> Iterator[subprocess.Popen[bytes]]:
    """An init with one child, like a container with `init: true`: it ends when its child ends."""
    process = subprocess.Popen(["sh", "-c", "sleep 600 & wait $!"], start_new_session=True)
    try:
        while not children(process):
            time.sleep(0.01)
        yield process
    finally:
        for child in children(process):
            os.kill(child, 9)
        process.wait()


def children(process: subprocess.Popen[bytes]) -> list[int]:
    try:
        with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:  # noqa: PTH123 - procfs has no size
            return [int(pid) for pid in file.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


class Check(Protocol):
    def __call__(self, init: subprocess.Popen[bytes], *command: str, seconds: str = "60") -> int: ...


@pytest.fixture
def check(repository: Path, tmp_path: Path) -> Check:
    def check(init: subprocess.Popen[bytes], *command: str, seconds: str = "60") -> int:
        environment = {**os.environ, "HEALTHCHECK_INIT": str(init.pid), "HEALTHCHECK_STATE": str(tmp_path / "state")}
        script = repository / "deploy" / "image" / "healthcheck"
        return subprocess.run([script, "3", seconds, *command], env=environment, check=False).returncode

    return check


def test_third_failure_in_a_row_ends_the_container(check: Check) -> None:
    with container() as init:
        results = [check(init, command) for command in ("true", "false", "false", "true", "false", "false")]
        assert results == [0, 1, 1, 0, 1, 1]
        assert init.poll() is None
        assert check(init, "sleep", "600", seconds="0.1") == 1
        assert init.wait(60) != 0


def test_container_that_never_was_healthy_is_left_alone(check: Check) -> None:
    with container() as init:
        assert [check(init, "false") for _ in range(5)] == [1] * 5
        assert init.poll() is None
