"""Start, restart and stop of the programs of a stack."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from dev.airflow_api import NotYetError, wait
from dev.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Leaves a child that no signal to its parent or its process group reaches, like a killed scheduler.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "hidden"], start_new_session=True)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the environment of the child from every user, as Airflow does for all users except root."""
    environ = psutil.Process.environ

    def refuse(process: psutil.Process) -> dict[str, str]:
        if process.cmdline()[-1:] == ["hidden"]:
            raise psutil.AccessDenied(process.pid)
        return environ(process)

    monkeypatch.setattr(psutil.Process, "environ", refuse)


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    supervisor = Supervisor(tmp_path, stop_seconds=1)
    yield supervisor
    supervisor.stop()


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


@pytest.mark.slow
@pytest.mark.usefixtures("hidden")
@pytest.mark.parametrize("end", [Supervisor.stop, Supervisor.kill])
def test_stop_ends_every_process(supervisor: Supervisor, end: Callable[[Supervisor], None]) -> None:
    supervisor.start({"stubborn": python(STUBBORN)}, os.environ)
    assert supervisor.running()

    def all_there() -> list[psutil.Process]:
        processes = supervisor.processes()
        if len(processes) < 3:
            msg = f"{len(processes)} of supervisord, the program and its child"
            raise NotYetError(msg)
        return processes

    processes = wait(all_there, seconds=30)
    socket = Path((supervisor.home / "socket").read_text())
    assert socket.exists()
    end(supervisor)

    assert not supervisor.running()
    assert not socket.parent.exists()
    assert [process for process in processes if process.is_running() and process.status() != "zombie"] == []


@pytest.mark.slow
def test_exited_program_is_named_with_its_output(supervisor: Supervisor) -> None:
    supervisor.start({"good": ["sleep", "600"], "bad": python("raise SystemExit('100 % gone')")}, os.environ)

    def broken() -> dict[str, str]:
        if not (found := supervisor.broken()):
            msg = "not noticed yet"
            raise NotYetError(msg)
        return found

    assert list(wait(broken, seconds=30)) == ["bad"]
    assert "100 % gone" in supervisor.log_end("bad")


@pytest.mark.slow
def test_killed_program_is_restarted_unless_expendable(supervisor: Supervisor) -> None:
    sleep = ["sleep", "600"]
    supervisor.start({"kept": sleep, "expendable": sleep}, os.environ, expendable={"expendable"})

    def pid(name: str) -> int:
        if not (processes := supervisor.processes_of(name)):
            msg = f"{name} does not run"
            raise NotYetError(msg)
        return processes[0].pid

    before = wait(lambda: pid("kept"), seconds=30)
    os.kill(wait(lambda: pid("expendable"), seconds=30), signal.SIGKILL)
    os.kill(before, signal.SIGKILL)

    def settled() -> None:
        if list(supervisor.broken()) != ["expendable"] or pid("kept") == before:
            msg = "not noticed yet"
            raise NotYetError(msg)

    wait(settled, seconds=30)
    assert supervisor.processes_of("expendable") == []


@pytest.mark.slow
def test_stopped_program_stays_stopped_until_it_is_started(supervisor: Supervisor) -> None:
    supervisor.start({"one": ["sleep", "600"], "other": ["sleep", "600"]}, os.environ)

    def both() -> None:
        if not (supervisor.processes_of("one") and supervisor.processes_of("other")):
            msg = "they do not run yet"
            raise NotYetError(msg)

    wait(both, seconds=30)
    supervisor.stop_program("one")
    assert supervisor.processes_of("one") == []
    assert supervisor.processes_of("other")
    supervisor.start_program("one")
    assert supervisor.processes_of("one")


@pytest.mark.slow
def test_processes_of_a_program_include_its_children(supervisor: Supervisor) -> None:
    supervisor.start({"stubborn": python(STUBBORN), "other": ["sleep", "600"]}, os.environ)

    def both() -> list[psutil.Process]:
        if len(processes := supervisor.processes_of("stubborn")) < 2:
            msg = "its child is not there yet"
            raise NotYetError(msg)
        return processes

    own, child = wait(both, seconds=30)
    assert child.ppid() == own.pid


@pytest.mark.slow
def test_secrets_of_the_environment_are_in_no_file(supervisor: Supervisor) -> None:
    supervisor.start({"sleep": ["sleep", "600"]}, {**os.environ, "SECRET": "very-secret-word"})
    files = [path for path in supervisor.home.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if b"very-secret-word" in path.read_bytes()] == []


def test_stop_without_a_start_is_no_error(supervisor: Supervisor) -> None:
    supervisor.stop()
    assert not supervisor.running()


def test_stale_process_id_of_another_program_is_ignored(supervisor: Supervisor) -> None:
    supervisor.pid_file.write_text(str(os.getpid()))
    assert not supervisor.running()


@pytest.mark.slow
def test_home_with_a_space_and_a_percent_sign_works(tmp_path: Path) -> None:
    home = tmp_path / "my home %d"
    home.mkdir()
    supervisor = Supervisor(home, stop_seconds=1)
    try:
        supervisor.start({"program": python("print('%d', flush=True); import time; time.sleep(600)")}, os.environ)
        assert supervisor.running()

        def printed() -> None:
            if supervisor.log_end("program") != "%d":
                raise NotYetError

        wait(printed, seconds=60)
    finally:
        supervisor.stop()
