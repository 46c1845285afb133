"""Errors of the local stack, and its start order. The end-to-end tests show that it works."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from dev.airflow_api import NotYetError, wait
from dev.postgres import Postgres
from dev.stack import TASK_STARTERS, Ports, Stack, StackError, dag_ids, make_writable, postgres_environment
from dev.supervisor import Supervisor

if TYPE_CHECKING:
    from pathlib import Path


def test_taken_ports_are_named_with_a_command_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_port_of_two_programs_counts_as_taken() -> None:
    port = Ports.free().airflow
    with pytest.raises(StackError, match=rf"Port {port} is taken.*_PORT=\d+"):
        Ports(port, port, Ports.free().n8n).refuse_taken()


def test_ports_come_from_the_environment_or_the_last_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_PORT", "18080")
    monkeypatch.delenv("ANALYTICS_ENGINE_PORT", raising=False)
    monkeypatch.setenv("N8N_PORT", "")
    assert Ports.from_environment() == Ports(18080, 8790, 5678)
    assert Ports.from_environment(Ports(1, 2, 3)) == Ports(18080, 2, 3)


@pytest.mark.parametrize("value", ["abc", "0", "65536", "-1", "80.5"])
def test_invalid_port_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("AIRFLOW_PORT", value)
    with pytest.raises(StackError, match=r"^AIRFLOW_PORT: not a port number"):
        Ports.from_environment()


def test_ports_of_the_last_start_are_kept(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    assert stack.kept_ports is None
    stack._write_notes(Postgres("postgresql://nobody@127.0.0.1:1/postgres", None), Ports(1, 2, 3))
    assert stack.kept_ports == Ports(1, 2, 3)


def test_second_start_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Supervisor, "running", lambda _: True)
    stack = Stack(tmp_path)
    with pytest.raises(StackError, match=r"running already. Stop it with: make down"):
        stack.start(Ports.free(), durable=False, say=print)


API_SERVER = """
import http.server, pathlib, sys, time
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.05)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")
http.server.HTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
"""
"""An API server that listens as soon as a file exists."""

TASK_STARTER = """
import sys, time, urllib.request
with urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/") as response:
    print(response.status, flush=True)
time.sleep(600)
"""
"""A scheduler or triggerer that calls the API server once."""


@pytest.mark.slow
def test_scheduler_and_triggerer_start_when_the_api_server_responds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stack, ready, ports = Stack(tmp_path), tmp_path / "ready", Ports.free()
    stack._write_notes(Postgres("postgresql://nobody@127.0.0.1:1/postgres", None), ports)
    (tmp_path / "api_server.py").write_text(API_SERVER)
    (tmp_path / "task_starter.py").write_text(TASK_STARTER)
    task_starter = [sys.executable, str(tmp_path / "task_starter.py"), str(ports.airflow)]
    api_server = [sys.executable, str(tmp_path / "api_server.py"), str(ready), str(ports.airflow)]
    programs = {"api-server": api_server, **dict.fromkeys(TASK_STARTERS, task_starter)}
    monkeypatch.setattr(Stack, "_programs", lambda _: programs)
    monkeypatch.setattr(Stack, "environment", lambda _: dict(os.environ))
    requests = 0

    def open_before_the_fourth_request() -> None:
        nonlocal requests
        requests += 1
        assert [name for name in TASK_STARTERS if stack.supervisor.processes_of(name)] == []
        if requests == 4:
            ready.touch()

    monkeypatch.setattr(stack, "_refuse_broken", open_before_the_fourth_request)
    try:
        stack._start_programs()
        stack._start_task_starters()
        for name in TASK_STARTERS:
            wait(partial(has_printed, stack.supervisor, name), seconds=60)
            assert stack.supervisor.log_end(name) == "200"
    finally:
        stack.supervisor.stop()


def has_printed(supervisor: Supervisor, program: str) -> None:
    if not supervisor.log_end(program):
        msg = f"{program} has printed nothing"
        raise NotYetError(msg)


def test_connection_from_the_environment_replaces_the_n8n_stand_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stack = Stack(tmp_path)
    stack._write_notes(Postgres("postgresql://nobody@127.0.0.1:1/postgres", None), Ports(1, 2, 3))
    monkeypatch.delenv("AIRFLOW_CONN_N8N", raising=False)
    assert "http://127.0.0.1:3" in stack.environment()["AIRFLOW_CONN_N8N"]
    real = '{"conn_type": "http", "password": "k", "extra": {"allowed_origins": ["http://localhost:5690"]}}'
    monkeypatch.setenv("AIRFLOW_CONN_N8N", real)
    assert stack.environment()["AIRFLOW_CONN_N8N"] == real


def test_unwritable_home_is_named(tmp_path: Path) -> None:
    home = tmp_path / "file" / "home"
    home.parent.touch()
    with pytest.raises(StackError, match=f"Cannot write to {home}: Not a directory. Make it writable"):
        make_writable(home)


def test_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=60_000_000))
    with pytest.raises(StackError, match=f"The disk of {tmp_path} has 60 MB left, and a stack needs 500 MB"):
        make_writable(tmp_path)


def test_dag_ids_are_the_names_of_the_dag_files(repository: Path) -> None:
    assert dag_ids() == {path.stem for path in (repository / "dags").iterdir() if path.suffix == ".py"}
    assert dag_ids()


def test_psql_gets_the_parts_of_the_url() -> None:
    assert postgres_environment("postgresql://me:word@host:5433/products?sslmode=require") == {
        "PGHOST": "host",
        "PGPORT": "5433",
        "PGUSER": "me",
        "PGPASSWORD": "word",
        "PGDATABASE": "products",
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "code", "output"),
    [
        ("shell", 1, "The stack is not running. Start it with: make up"),
        ("migrate", 1, "The stack is not running. Start it with: make up"),
        ("down", 0, "The stack is not running."),
    ],
)
def test_command_without_a_stack_names_the_next_command(
    command: str, code: int, output: str, repository: Path, tmp_path: Path
) -> None:
    # A separate home, because the stack of this checkout may be running.
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
    assert (done.returncode, done.stdout.strip()) == (code, output)
