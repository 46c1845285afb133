"""The long-running programs of a stack. supervisord starts them, restarts those that exit, and stops all of them."""

from __future__ import annotations

import configparser
import getpass
import io
import os
import shutil
import subprocess
import sys
import tempfile
import xmlrpc.client
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import tenacity
from supervisor.xmlrpc import SupervisorTransport  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

START_SECONDS = 30
"""Time limit for supervisord to write its process ID, in seconds."""

MARK = "AGGREGATOR_STACK"
"""Environment variable of every process of a stack. Its value is the home of the stack."""


@dataclass(frozen=True)
class Supervisor:
    """A supervisord with its files in one folder.

    Attributes:
        home: Folder of its configuration, its process ID and, in ``logs/``, the output of the programs.
        stop_seconds: Seconds between a program's termination signal and its kill signal.
    """

    home: Path
    stop_seconds: int = 25

    @property
    def pid_file(self) -> Path:
        """File with the process ID of supervisord."""
        return self.home / "supervisord.pid"

    @property
    def _socket_file(self) -> Path:
        return self.home / "socket"

    def running(self) -> bool:
        """Whether supervisord runs."""
        try:
            return "supervisord" in " ".join(psutil.Process(int(self.pid_file.read_text())).cmdline())
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
            return False

    def start(
        self,
        programs: Mapping[str, Sequence[str]],
        environment: Mapping[str, str],
        *,
        expendable: Collection[str] = (),
        later: Collection[str] = (),
    ) -> None:
        """Start programs in the background.

        The environment contains secrets, so it is written to no file.

        Args:
            programs: Name → command.
            environment: Environment of every program.
            expendable: Names of the programs that are not restarted when they exit.
            later: Names of the programs that :meth:`start_program` starts.
        """
        logs = self.home / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        # The path of a Unix socket is limited to about 100 characters; the home may be longer.
        socket = Path(tempfile.mkdtemp(prefix="aggregator-")) / "supervisor"
        self._socket_file.write_text(str(socket))
        configuration = configparser.RawConfigParser()
        configuration["supervisord"] = {
            "user": getpass.getuser(),
            "directory": str(Path(__file__).parents[1]),
            "pidfile": str(self.pid_file),
            "logfile": str(logs / "supervisord.log"),
            "childlogdir": str(logs),
        }
        configuration["unix_http_server"] = {"file": str(socket), "chmod": "0700"}
        configuration["rpcinterface:supervisor"] = {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        }
        for name, command in programs.items():
            configuration[f"program:{name}"] = {
                "command": subprocess.list2cmdline(command),
                "redirect_stderr": "true",
                "stdout_logfile": str(logs / f"{name}.log").replace("%", "%%"),  # supervisord expands it twice
                "autostart": "false" if name in later else "true",
                "autorestart": "false" if name in expendable else "true",
                # supervisord restarts every program that exits before this time, in seconds.
                "startsecs": "0" if name in expendable else "1",
                "stopasgroup": "true",
                "killasgroup": "true",
                "stopwaitsecs": str(self.stop_seconds),
            }
        for section in configuration.values():
            for option, value in section.items():
                section[option] = value.replace("%", "%%")  # supervisord expands %(…)s
        text = io.StringIO()
        configuration.write(text)
        path = self.home / "supervisord.conf"
        path.write_text(text.getvalue())
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(path)]
        # Airflow renames its processes. Without SPT_NOENV, that overwrites the environment and the mark in it.
        marked = {**environment, MARK: str(self.home), "SPT_NOENV": "1"}
        subprocess.run(command, env=marked, check=True)
        # supervisord writes its process ID after it detaches.
        tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda running: not running),
            wait=tenacity.wait_fixed(0.05),
            stop=tenacity.stop_after_delay(START_SECONDS),
        )(self.running)

    def broken(self) -> dict[str, str]:
        """Return the programs that do not run → the end of their output."""
        states = {name: info["statename"] for name, info in self._programs().items()}
        return {name: self.log_end(name) for name, state in states.items() if state in {"BACKOFF", "EXITED", "FATAL"}}

    def processes_of(self, program: str) -> list[psutil.Process]:
        """Return the process of a program, then all its descendants; an empty list if it does not run."""
        try:
            process = psutil.Process(self._programs()[program]["pid"])
            return [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def stop_program(self, name: str) -> None:
        """Stop a program until :meth:`start_program`."""
        with self._rpc() as supervisor:
            supervisor.stopProcess(name)

    def start_program(self, name: str) -> None:
        """Start a program that does not run."""
        with self._rpc() as supervisor:
            supervisor.startProcess(name)

    def _programs(self) -> dict[str, dict[str, Any]]:
        with self._rpc() as supervisor:
            return {info["name"]: info for info in supervisor.getAllProcessInfo()}

    @contextmanager
    def _rpc(self) -> Iterator[Any]:
        transport = SupervisorTransport(None, None, f"unix://{self._socket_file.read_text()}")
        proxy: Any = xmlrpc.client.ServerProxy("http://supervisor", transport=transport)
        try:
            yield proxy.supervisor
        finally:
            transport.close()

    def log_end(self, program: str, lines: int = 15) -> str:
        """Return the last lines of a program's output."""
        path = self.home / "logs" / f"{program}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    def stop(self) -> None:
        """Stop every program and every other process with the stack's mark, such as the tasks of a killed scheduler."""
        # Listed before their parents exit: a process that hides its environment is found only through its parent.
        known = self.processes()
        if self.running():
            supervisord = psutil.Process(int(self.pid_file.read_text()))
            supervisord.terminate()
            psutil.wait_procs([supervisord], timeout=2 * self.stop_seconds)
        self._kill(known)
        self.kill()

    def kill(self) -> None:
        """Kill all processes at once, for a stack whose data is no longer needed."""
        while leftovers := self.processes():  # repeated: a process may have started another one
            self._kill(leftovers)
        if self._socket_file.exists():
            shutil.rmtree(Path(self._socket_file.read_text()).parent, ignore_errors=True)

    def _kill(self, processes: Sequence[psutil.Process]) -> None:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=self.stop_seconds)

    def processes(self) -> list[psutil.Process]:
        """Return every process of this stack except this one; supervisord, which restarts the others, is first."""
        found: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == str(self.home):
                    # Airflow hides the environment of task processes from all users except root.
                    found |= {each.pid: each for each in (process, *process.children(recursive=True))}
        return [process for process in found.values() if process.pid != os.getpid() and _is_alive(process)]


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
