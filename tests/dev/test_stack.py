"""What a person is told who uses the local stack wrongly. That it works is the end-to-end tests' business."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from dev.postgres import Postgres
from dev.stack import Ports, Stack, StackError, dag_ids, postgres_environment
from dev.supervisor import Supervisor

if TYPE_CHECKING:
    from pathlib import Path


def test_taken_port_is_named_with_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(StackError, match=rf"Port {port} is taken.*make up AIRFLOW_PORT={port + 1}"):
            replace(Ports.free(), airflow=port).refuse_taken()


def test_ports_come_from_the_environment(monkeypatch) -> None:
    monkeypatch.setenv("AIRFLOW_PORT", "18080")
    monkeypatch.delenv("ANALYTICS_ENGINE_PORT", raising=False)
    monkeypatch.delenv("N8N_PORT", raising=False)
    assert Ports.from_environment() == Ports(18080, 8790, 5678)


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
