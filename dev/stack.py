"""The local stack: PostgreSQL, stand-ins for Analytics Engine and n8n, and a complete Airflow, in one folder.

The demo, ``make up`` and the end-to-end tests each run a stack.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import psycopg
from psycopg.conninfo import conninfo_to_dict

from aggregator.kpi.registry import VARIABLE
from aggregator.postgres.migrations import databases, migrate
from dev import postgres as embedded
from dev.airflow_api import AirflowApi
from dev.analytics_engine.client import TOKEN, AnalyticsEngineControl
from dev.n8n.client import KEY_VARIABLE, REPORT_SECRET, N8nControl
from dev.sample import kpis
from dev.sample.load import load
from dev.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aggregator.postgres.migrations import Report
    from dev.postgres import Postgres

REPOSITORY = Path(__file__).parents[1]
ACCOUNT_ID = "local"
PRODUCTS = ("market", "clicks", "analytics", "telemetry", "kpi", "ops")
"""Names of the products' databases. Each has a connection; in the local stack, all are the same database."""

_PORTS = 65_536

_MB = 1_000_000
NEEDED = 500 * _MB
"""Free disk space that a stack needs, in bytes. PostgreSQL uses most of it."""

TASK_STARTERS = ("scheduler", "triggerer")
"""Programs that start tasks, which fail while the API server does not respond."""

DATABASES = ("airflow", "products")
"""Databases that the stack creates on its PostgreSQL server."""


class StackError(Exception):
    """A command for the stack failed; the text says why and what to do."""


@dataclass(frozen=True)
class Ports:
    """Ports of the programs, on 127.0.0.1.

    Attributes:
        airflow: Airflow's UI and REST API.
        analytics_engine: The stand-in for the SQL API of Analytics Engine.
        n8n: The stand-in for n8n.
    """

    airflow: int
    analytics_engine: int
    n8n: int

    @classmethod
    def from_environment(cls, kept: Ports | None = None) -> Ports:
        """Read ``AIRFLOW_PORT``, ``ANALYTICS_ENGINE_PORT`` and ``N8N_PORT``.

        Args:
            kept: Ports for variables that are not set; None for the defaults 8080, 8790 and 5678.

        Raises:
            StackError: A variable is not a port number.
        """
        defaults = asdict(kept or cls(8080, 8790, 5678))
        given = {name: os.environ.get(_variable(name)) or str(port) for name, port in defaults.items()}
        wrong = [name for name, port in given.items() if not (port.isdecimal() and 0 < int(port) < _PORTS)]
        if wrong:
            msg = f"{', '.join(map(_variable, wrong))}: not a port number (1 to {_PORTS - 1})."
            raise StackError(msg)
        return cls(**{name: int(port) for name, port in given.items()})

    @classmethod
    def free(cls) -> Ports:
        """Return ports that no program uses."""
        with ExitStack() as opened:
            sockets = [opened.enter_context(socket.socket()) for _ in fields(cls)]
            for each in sockets:
                each.bind(("127.0.0.1", 0))
            return cls(*(each.getsockname()[1] for each in sockets))

    def refuse_taken(self) -> None:
        """Check that every program can listen on its port.

        Raises:
            StackError: Some ports are taken. The text names all of them, and a command with free ports.
        """
        ports = asdict(self)
        free: dict[str, int] = {}
        for name, port in ports.items():
            # The next higher port that neither another program nor another part of this stack uses.
            others = {*free.values(), *(other for key, other in ports.items() if key != name and key not in free)}
            candidates = [port, *range(max(port + 1, 1024), _PORTS), *range(1024, _PORTS)]
            free[name] = next(each for each in candidates if each not in others and _is_free(each))
        taken = sorted({port for name, port in ports.items() if free[name] != port})
        if taken:
            # The command repeats the variables that are set, so that it works as it is.
            given = {name for name in ports if os.environ.get(_variable(name))}
            command = [
                f"{_variable(name)}={port}" for name, port in free.items() if name in given or port != ports[name]
            ]
            one = len(taken) == 1
            msg = (
                f"{'Port' if one else 'Ports'} {' and '.join(map(str, taken))} {'is' if one else 'are'} taken or not "
                f"allowed. Try: make up {' '.join(command)}"
            )
            raise StackError(msg)


def _variable(port: str) -> str:
    """The environment variable of a port."""
    return f"{port.upper()}_PORT"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class Stack:
    """One local stack.

    Args:
        home: Folder of all its files.
        workers: Number of Celery workers, with Redis; 0 for LocalExecutor.
        configuration: Environment variables of its programs, which override those that the stack sets.
    """

    def __init__(self, home: Path, *, workers: int = 0, configuration: Mapping[str, str] | None = None) -> None:
        self.home = home.resolve()
        self.workers = [f"worker-{number}" for number in range(1, workers + 1)]
        self.configuration = configuration or {}
        self.supervisor = Supervisor(self.home)

    @property
    def running(self) -> bool:
        """Whether the stack was started and not stopped."""
        return self.supervisor.running()

    @property
    def kept_ports(self) -> Ports | None:
        """Ports of the last start; None before the first start."""
        return self.ports if self._notes_file.exists() else None

    @property
    def ports(self) -> Ports:
        """Ports of the stack."""
        return Ports(**self._notes()["ports"])

    @property
    def airflow_url(self) -> str:
        """URL of the UI and the REST API."""
        return f"http://localhost:{self.ports.airflow}"

    @property
    def operations_url(self) -> str:
        """URL of the Operations page."""
        return f"{self.airflow_url}/plugin/operations"

    @property
    def products_url(self) -> str:
        """Libpq URL of the database of all products."""
        return self.url_of("products")

    def url_of(self, name: str) -> str:
        """Return the libpq URL of one of ``DATABASES``."""
        return self._postgres.url_of(self._database(name))

    @property
    def analytics_engine(self) -> AnalyticsEngineControl:
        """Control of the stand-in: write events, inject faults."""
        return AnalyticsEngineControl(f"http://127.0.0.1:{self.ports.analytics_engine}")

    @property
    def n8n(self) -> N8nControl:
        """Control of the stand-in: register workflows, inject faults, list executions."""
        return N8nControl(f"http://127.0.0.1:{self.ports.n8n}")

    @property
    def airflow(self) -> AirflowApi:
        """Airflow's REST API."""
        return AirflowApi(self.airflow_url)

    def freshness(self) -> tuple[int, dict[str, str]]:
        """Return the status code of ``/api/freshness``, and table → state."""
        secret = self.environment()["CRON_SECRET"]
        response = httpx.get(
            f"{self.airflow_url}/api/freshness", headers={"Authorization": f"Bearer {secret}"}, timeout=30
        )
        return response.status_code, {target["target"]: target["state"] for target in response.json()["targets"]}

    def start(self, ports: Ports, *, durable: bool, say: Callable[[str], object], history: bool = False) -> None:
        """Start everything, and wait until Airflow has loaded every DAG.

        Args:
            ports: Ports of the programs.
            durable: Whether the data must survive a power failure.
            say: Called with the name of each step before it starts.
            history: Whether to load four weeks of results, too.

        Raises:
            StackError: The stack runs already, a port is taken, or a program does not start.
        """
        if self.running:
            msg = "The stack is running already. Stop it with: make down"
            raise StackError(msg)
        if self.workers and shutil.which("redis-server") is None:
            msg = "Celery workers need redis-server. Install it; on Debian and Ubuntu: apt install redis-server"
            raise StackError(msg)
        ports.refuse_taken()
        make_writable(self.home)
        try:
            say("Starting PostgreSQL")
            server = embedded.start(self.home / "postgres", durable=durable)
            self._write_notes(server, ports)
            self._create_databases(say)
            say("Starting the stand-ins and Airflow")
            self._start_programs()
            self.analytics_engine.wait_until_ready()
            self.n8n.wait_until_ready()
            say("Loading the sample data")
            with psycopg.connect(self.products_url) as connection:
                load(self.analytics_engine, connection, history=history)
            say("Waiting for Airflow's API server")
            self._start_task_starters()
            say("Waiting for Airflow to load the DAGs")
            self.airflow.wait_until_loaded(dag_ids(), self._refuse_broken)
            self._load_kpis()
        except BaseException:
            self.stop()
            raise

    def _start_programs(self) -> None:
        self.supervisor.start(self._programs(), self.environment(), expendable=self.workers, later=TASK_STARTERS)

    def _start_task_starters(self) -> None:
        """Start the programs that start tasks, as soon as the API server responds."""
        self.airflow.wait_until_up(self._refuse_broken)
        for program in TASK_STARTERS:
            self.supervisor.start_program(program)

    def _load_kpis(self) -> None:
        """Register the sample workflows, and create the KPI registry unless it exists."""
        self.n8n.register(kpis.workflows())
        variables = {variable["key"] for variable in self.airflow.get("variables", limit=100)["variables"]}
        if VARIABLE not in variables:
            registry = json.dumps(kpis.registry(self.n8n.url), indent=2)
            self.airflow.post("variables", key=VARIABLE, value=registry, description="KPIs that kpi_dispatch sends")

    def stop(self) -> None:
        """Stop everything that ``start`` started. The data stays."""
        self.supervisor.stop()
        if self._notes_file.exists():
            self._postgres.stop()

    def remove(self) -> None:
        """Kill all programs and delete the data."""
        self.supervisor.kill()
        if self._notes_file.exists():
            if self._postgres.data is None:
                for name in DATABASES:
                    self._postgres.drop_database(self._database(name))
            self._postgres.stop("immediate")
        shutil.rmtree(self.home, ignore_errors=True)

    def environment(self) -> dict[str, str]:
        """Return the environment of the stack's programs: Airflow's configuration and connections."""
        secret = self._secret
        ports = self.ports
        return {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), str(embedded.PROGRAMS), os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "plugins"), str(REPOSITORY)]),
            "PYTHONUNBUFFERED": "1",
            "AIRFLOW_HOME": str(self.home / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor" if self.workers else "LocalExecutor",
            "AIRFLOW__CELERY__BROKER_URL": f"redis+socket://{self._redis_socket}",
            "AIRFLOW__CORE__PARALLELISM": "4",
            # On Python 3.14, LocalExecutor forks no workers, so tasks would inherit nothing. macOS cannot fork safely.
            **({"AIRFLOW__CORE__MP_START_METHOD": "fork"} if sys.platform == "linux" else {}),
            # A supervisor that misses the end of its task waits this long (default: 5 s), and the slot stays taken.
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__FERNET_KEY": secret(
                "fernet_key", lambda: base64.urlsafe_b64encode(os.urandom(32)).decode()
            ),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{ports.airflow}/execution/",
            # No login: only users of this machine can reach 127.0.0.1.
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(ports.airflow),
            "AIRFLOW__API__BASE_URL": self.airflow_url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__DEFAULT_WRAP": "True",
            "AIRFLOW__API__SECRET_KEY": secret("secret_key", secrets.token_hex),
            "AIRFLOW__API_AUTH__JWT_SECRET": secret("jwt_secret", partial(secrets.token_hex, 64)),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self._airflow_connection(),
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
            **{f"AIRFLOW_CONN_{name.upper()}_DB": self._postgres_connection() for name in PRODUCTS},
            TOKEN: secret("analytics_engine_token", secrets.token_hex),
            "AIRFLOW_CONN_ANALYTICS_ENGINE": json.dumps(
                {
                    "conn_type": "http",
                    "host": "http://127.0.0.1",
                    "port": ports.analytics_engine,
                    "password": secret("analytics_engine_token", secrets.token_hex),
                    "extra": {"account_id": ACCOUNT_ID},
                }
            ),
            KEY_VARIABLE: secret("n8n_key", secrets.token_hex),
            # A real n8n replaces the stand-in through this connection.
            "AIRFLOW_CONN_N8N": os.environ.get("AIRFLOW_CONN_N8N")
            or json.dumps(
                {
                    "conn_type": "http",
                    "password": secret("n8n_key", secrets.token_hex),
                    "extra": {"allowed_origins": [f"http://127.0.0.1:{ports.n8n}"]},
                }
            ),
            REPORT_SECRET: secret("scheduler_api_key", secrets.token_hex),
            "CRON_SECRET": secret("cron_secret", secrets.token_hex),
            "SCHEDULER_API_KEY": secret("scheduler_api_key", secrets.token_hex),
            # The defaults were set for the CPU limit of a Worker. With them, symbols starve.
            "MAX_TASKS_PER_RUN": "100000",
            "MAX_WINDOWS_PER_TASK": "5000",
            **postgres_environment(self.products_url),
            **self.configuration,
        }

    def _create_databases(self, say: Callable[[str], object]) -> None:
        for name in DATABASES:
            self._postgres.ensure_database(self._database(name))
        say("Migrating Airflow's database and the products' databases")
        with ThreadPoolExecutor() as threads:
            airflow = threads.submit(self.run, "airflow", "db", "migrate")
            for database in databases():
                say(f"  {_counts(migrate(partial(psycopg.connect, self.products_url), database))}")
            airflow.result()

    def run(self, *command: str) -> str:
        """Run a command in the environment of this stack and return its output.

        Raises:
            StackError: The command failed. The text ends with its output.
        """
        done = subprocess.run(
            command, env=self.environment(), cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            msg = f"`{' '.join(command)}` failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            raise StackError(msg)
        return done.stdout

    def _programs(self) -> dict[str, list[str]]:
        data = str(self.home / "analytics_engine")
        stand_in = [sys.executable, "-m", "dev.analytics_engine", "--data", data, "--account", ACCOUNT_ID]
        return {
            "analytics-engine": [*stand_in, "--port", str(self.ports.analytics_engine)],
            "n8n": [
                *(sys.executable, "-m", "dev.n8n", "--port", str(self.ports.n8n)),
                *("--reports-to", f"http://127.0.0.1:{self.ports.airflow}/api/kpi"),
            ],
            "api-server": ["airflow", "api-server"],
            "dag-processor": ["airflow", "dag-processor"],
            "scheduler": ["airflow", "scheduler", "--skip-serve-logs"],
            "triggerer": ["airflow", "triggerer", "--skip-serve-logs"],
            "alerts": [sys.executable, "-m", "aggregator.alerts.watch"],
            **self._celery_programs(),
        }

    def _celery_programs(self) -> dict[str, list[str]]:
        if not self.workers:
            return {}
        # A socket that only its owner can use needs no port and no password.
        redis = ["redis-server", "--port", "0", "--unixsocket", str(self._redis_socket), "--unixsocketperm", "700"]
        # Workers import what tasks need before they fork them only if they load the plugin when they start.
        worker = ["env", "AIRFLOW__CORE__LAZY_LOAD_PLUGINS=False", "airflow", "celery", "worker"]
        worker += ["--skip-serve-logs", "--celery-hostname"]
        return {
            # A process title would overwrite the environment and the stack's mark in it.
            "redis": [*redis, "--save", "", "--dir", str(self.home), "--set-proc-title", "no"],
            **{name: [*worker, name] for name in self.workers},
        }

    def _refuse_broken(self) -> None:
        if broken := self.supervisor.broken():
            ends = "\n\n".join(f"End of the output of {name}:\n{end}" for name, end in broken.items())
            msg = f"{', '.join(broken)} did not start. The complete output is in {self.home / 'logs'}\n\n{ends}"
            raise StackError(msg)

    def _airflow_connection(self) -> str:
        url = urlsplit(self.url_of("airflow"))
        if not url.password:
            host = url.netloc.rpartition("@")[2]
            url = url._replace(netloc=f"{url.username}:{self._database_password}@{host}")
        return urlunsplit(url._replace(scheme="postgresql+psycopg2"))

    def _postgres_connection(self) -> str:
        parts = {"password": self._database_password, **conninfo_to_dict(self.products_url)}
        names = {"user": "login", "password": "password", "host": "host", "port": "port", "dbname": "schema"}
        connection = {names[key]: value for key, value in parts.items() if key in names}
        extra = {key: value for key, value in parts.items() if key not in names}
        return json.dumps({"conn_type": "postgres", **connection, "extra": extra})

    @property
    def _database_password(self) -> str:
        """Password of the clients. The embedded server needs none; tests check that no output contains it."""
        return self._secret("database_password", secrets.token_hex)

    def _secret(self, name: str, generate: Callable[[], str]) -> str:
        path = self.home / "secrets" / name
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.write_text(generate())
        return path.read_text()

    def _database(self, name: str) -> str:
        return f"aggregator_{self.home.name}_{name}"

    @property
    def _redis_socket(self) -> Path:
        return self.home / "redis.sock"

    @property
    def _notes_file(self) -> Path:
        return self.home / "stack.json"

    @property
    def _postgres(self) -> Postgres:
        notes = self._notes()
        return embedded.Postgres(
            notes["postgres_url"], Path(notes["postgres_data"]) if notes["postgres_data"] else None
        )

    def _notes(self) -> dict[str, Any]:
        notes: dict[str, Any] = json.loads(self._notes_file.read_text())
        return notes

    def _write_notes(self, server: Postgres, ports: Ports) -> None:
        notes = {"ports": asdict(ports), "postgres_url": server.url, "postgres_data": server.data and str(server.data)}
        self._notes_file.touch(mode=0o600)  # the URL of an existing server may contain a password
        self._notes_file.write_text(json.dumps(notes))


def _counts(report: Report) -> str:
    """Summarize a migration report without the names of functions."""
    changes = {"migration": len(report.migrations), "function": len(report.functions)}
    applied = ", ".join(f"{count} {what}{'s' if count > 1 else ''}" for what, count in changes.items() if count)
    return "\n  ".join(f"{report.database}: {line}" for line in [applied or "up to date", *report.notices])


def make_writable(folder: Path) -> None:
    """Create a folder, or check that an existing one is writable.

    Args:
        folder: The folder.

    Raises:
        StackError: The folder is not writable, or its disk is almost full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        msg = f"Cannot write to {folder}: {error.strerror}. Make it writable for your user, or remove it."
        raise StackError(msg) from None
    if (free := shutil.disk_usage(folder).free) < NEEDED:
        msg = f"The disk of {folder} has {free // _MB} MB left, and a stack needs {NEEDED // _MB} MB. Free some space."
        raise StackError(msg)


def dag_ids() -> set[str]:
    """Return the DAG IDs of the repository: the names of the DAG files."""
    return {path.stem for path in (REPOSITORY / "dags").glob("*.py")}


def bundles(folders: Mapping[str, Path]) -> dict[str, str]:
    """Return the variable that makes Airflow load the DAGs of these folders only.

    Args:
        folders: Name of a bundle → folder.
    """
    classpath = "airflow.dag_processing.bundles.local.LocalDagBundle"
    entries = [
        {"name": name, "classpath": classpath, "kwargs": {"path": str(folder)}} for name, folder in folders.items()
    ]
    return {"AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(entries)}


def postgres_environment(url: str) -> dict[str, str]:
    """Return the variables with which ``psql`` and similar programs find the database of ``url``."""
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}
    return {names[key]: str(value) for key, value in conninfo_to_dict(url).items() if key in names and value}
