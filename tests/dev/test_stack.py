"""What a person is told who uses the local stack wrongly. That it works is the end-to-end tests' business."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from dev.postgres import Postgres
from dev.stack import Ports, Stack, StackError, dag_ids, make_writable, postgres_environment
from dev.supervisor import Supervisor

if TYPE_CHECKING:
    from pathlib import Path


def test_all_taken_ports_are_named_with_a_command_that_works(monkeypatch) -> None:
    monkeypatch.delenv("ANALYTICS_ENGINE_PORT", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        taken = [first.getsockname()[1], second.getsockname()[1]]
        free = Ports.free()
        monkeypatch.setenv("AIRFLOW_PORT", str(taken[0]))
        monkeypatch.setenv("N8N_PORT", str(free.n8n))
        with pytest.raises(StackError, match=r"^Ports \d+ and \d+ are taken or not allowed. Try: make up ") as refused:
            Ports(taken[0], taken[1], free.n8n).refuse_taken()
        hint = dict(each.split("=") for each in str(refused.value).partition("make up ")[2].split())
        assert hint.keys() == {"AIRFLOW_PORT", "ANALYTICS_ENGINE_PORT", "N8N_PORT"}
        assert hint["N8N_PORT"] == str(free.n8n)
        for name, port in hint.items():
            monkeypatch.setenv(name, port)
        Ports.from_environment().refuse_taken()


def test_port_of_two_programs_is_taken() -> None:
    port = Ports.free().airflow
    with pytest.raises(StackError, match=rf"Port {port} is taken.*_PORT={port + 1}"):
        Ports(port, port, Ports.free().n8n).refuse_taken()


def test_ports_come_from_the_environment_or_the_last_time(monkeypatch) -> None:
    monkeypatch.setenv("AIRFLOW_PORT", "18080")
    monkeypatch.delenv("ANALYTICS_ENGINE_PORT", raising=False)
    monkeypatch.setenv("N8N_PORT", "")
    assert Ports.from_environment() == Ports(18080, 8790, 5678)
    assert Ports.from_environment(Ports(1, 2, 3)) == Ports(18080, 2, 3)


@pytest.mark.parametrize("value", ["abc", "0", "65536", "-1", "80.5"])
def test_port_that_is_none_is_named(monkeypatch, value: str) -> None:
    monkeypatch.setenv("AIRFLOW_PORT", value)
    with pytest.raises(StackError, match=r"^AIRFLOW_PORT: not the number of a port"):
        Ports.from_environment()


def test_ports_of_a_stack_are_kept(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    assert stack.kept_ports is None
    stack._write_notes(Postgres("postgresql://nobody@127.0.0.1:1/postgres", None), Ports(1, 2, 3))
    assert stack.kept_ports == Ports(1, 2, 3)


def test_starting_twice_says_so(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Supervisor, "running", lambda _: True)
    stack = Stack(tmp_path)
    with pytest.raises(StackError, match=r"running already. Stop it with: make down"):
        stack.start(Ports.free(), durable=False, say=print)


def test_real_n8n_takes_the_place_of_the_stand_in_by_a_connection(monkeypatch, tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    stack._write_notes(Postgres("postgresql://nobody@127.0.0.1:1/postgres", None), Ports(1, 2, 3))
    monkeypatch.delenv("AIRFLOW_CONN_N8N", raising=False)
    assert "http://127.0.0.1:3" in stack.environment()["AIRFLOW_CONN_N8N"]
    real = '{"conn_type": "http", "password": "k", "extra": {"allowed_origins": ["http://localhost:5690"]}}'
    monkeypatch.setenv("AIRFLOW_CONN_N8N", real)
    assert stack.environment()["AIRFLOW_CONN_N8N"] == real


def test_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    home = tmp_path / "file" / "home"
    home.parent.touch()
    with pytest.raises(StackError, match=f"Nothing can be written to {home}: Not a directory. Make it yours"):
        make_writable(home)


def test_full_disk_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=60_000_000))
    with pytest.raises(StackError, match=f"The disk of {tmp_path} has 60 MB left, and a stack needs 500 MB"):
        make_writable(tmp_path)


def test_dags_are_those_of_the_repository(repository: Path) -> None:
    assert dag_ids() == {path.stem for path in (repository / "dags").iterdir() if path.suffix == ".py"}
    assert dag_ids()


def test_psql_finds_the_database() -> None:
    assert postgres_environment("postgresql://me:word@host:5433/products?sslmode=require") == {
        "PGHOST": "host",
        "PGPORT": "5433",
        "PGUSER": "me",
        "PGPASSWORD": "word",
        "PGDATABASE": "products",
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "code", "answer"),
    [
        ("shell", 1, "The stack is not running. Start it with: make up"),
        ("migrate", 1, "The stack is not running. Start it with: make up"),
        ("down", 0, "The stack is not running."),
    ],
)
def test_commands_without_a_stack_say_what_to_do(
    command: str, code: int, answer: str, repository: Path, tmp_path: Path
) -> None:
    # In a home of its own: the checkout's stack may be running.
    program = (
        "import sys, pathlib, dev.stack, dev.__main__ as main; main.HOME = pathlib.Path(sys.argv.pop(1)); "
        "sys.exit(main.main())"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_CONN_")}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), command],
        env=environment | {"PYTHONPATH": f"{repository / 'plugins'}:{repository}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (code, answer)
