"""The long-running programs of a stack, kept by supervisord: started together, restarted if they die, stopped whole."""

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
"""How long supervisord may take to go into the background."""

MARK = "AGGREGATOR_STACK"
"""Environment variable that every process of a stack inherits; its value is the stack's home."""


@dataclass(frozen=True)
class Supervisor:
    """A supervisord of its own for one folder.

    Attributes:
        home: Holds its configuration, process id and, under ``logs/``, what the programs print.
        stop_seconds: How long a program may take to stop by itself before it is killed.
    """

    home: Path
    stop_seconds: int = 25

    @property
    def pid_file(self) -> Path:
        """Where supervisord keeps its process id."""
        return self.home / "supervisord.pid"

    @property
    def _socket_file(self) -> Path:
        return self.home / "socket"

    def running(self) -> bool:
        """Whether the programs are being kept."""
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
    ) -> None:
        """Start ``programs`` (name → command) with ``environment``, in the background.

        Nothing of the environment is written to a file: it holds secrets.

        Args:
            programs: What to start.
            environment: Of all of them.
            expendable: Names of the programs that stay dead when they die.
        """
        logs = self.home / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        # A Unix socket's path may have a hundred characters or so; a home may have more.
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
                "stdout_logfile": str(logs / f"{name}.log").replace("%", "%%"),  # which it expands twice
                "autorestart": "false" if name in expendable else "true",
                # What dies sooner is started again, wanted or not.
                "startsecs": "0" if name in expendable else "1",
                "stopasgroup": "true",
                "killasgroup": "true",
                "stopwaitsecs": str(self.stop_seconds),
            }
        for section in configuration.values():
            for option, value in section.items():
                section[option] = value.replace("%", "%%")  # it expands %(…)s
        text = io.StringIO()
        configuration.write(text)
        path = self.home / "supervisord.conf"
        path.write_text(text.getvalue())
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(path)]
        # Airflow renames its processes; without SPT_NOENV that overwrites the environment in which the mark stands.
        marked = {**environment, MARK: str(self.home), "SPT_NOENV": "1"}
        subprocess.run(command, env=marked, check=True)
        # It notes its process id a moment after it has gone into the background.
        tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda running: not running),
            wait=tenacity.wait_fixed(0.05),
            stop=tenacity.stop_after_delay(START_SECONDS),
        )(self.running)

    def broken(self) -> dict[str, str]:
        """The programs that do not run → the end of what each printed."""
        states = {name: info["statename"] for name, info in self._programs().items()}
        return {name: self.log_end(name) for name, state in states.items() if state in {"BACKOFF", "EXITED", "FATAL"}}

    def processes_of(self, program: str) -> list[psutil.Process]:
        """The processes of a program: its own first, then all that it has started; none if it does not run."""
        try:
            process = psutil.Process(self._programs()[program]["pid"])
            return [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def stop_program(self, name: str) -> None:
        """Stop one program, which stays stopped."""
        with self._rpc() as supervisor:
            supervisor.stopProcess(name)

    def start_program(self, name: str) -> None:
        """Start one program that was stopped."""
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
        """The last ``lines`` lines that ``program`` printed."""
        path = self.home / "logs" / f"{program}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    def stop(self) -> None:
        """Stop every program, and all that carries this stack's mark: tasks outlive a scheduler that was killed."""
        # Before their parents have gone: those that hide their environment are only known as somebody's children.
        known = self.processes()
        if self.running():
            supervisord = psutil.Process(int(self.pid_file.read_text()))
            supervisord.terminate()
            psutil.wait_procs([supervisord], timeout=2 * self.stop_seconds)
        self._kill(known)
        self.kill()

    def kill(self) -> None:
        """End all of it at once, for a stack whose data is not needed any more."""
        while leftovers := self.processes():  # again: one of them may have started another meanwhile
            self._kill(leftovers)
        if self._socket_file.exists():
            shutil.rmtree(Path(self._socket_file.read_text()).parent, ignore_errors=True)

    def _kill(self, processes: Sequence[psutil.Process]) -> None:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=self.stop_seconds)

    def processes(self) -> list[psutil.Process]:
        """Every living process of this stack, this one excepted; supervisord, which would restart the others, first."""
        found: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == str(self.home):
                    # Airflow hides the environment of processes with tasks from all users but root.
                    found |= {each.pid: each for each in (process, *process.children(recursive=True))}
        return [process for process in found.values() if process.pid != os.getpid() and _is_alive(process)]


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
