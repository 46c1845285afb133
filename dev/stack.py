"""The local stack: PostgreSQL, the Analytics Engine stand-in, and a whole Airflow, in one folder.

The demo, ``make up`` and the end-to-end tests each run one of these.
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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

from aggregator.migrations import databases, migrate
from dev import postgres as embedded
from dev.airflow_api import AirflowApi
from dev.analytics_engine.client import TOKEN, AnalyticsEngineControl
from dev.sample.load import load
from dev.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

    from dev.postgres import Postgres

REPOSITORY = Path(__file__).parents[1]
ACCOUNT_ID = "local"
PRODUCTS = ("market", "clicks", "analytics", "telemetry", "kpi", "ops")
"""The products' databases, each with its connection; in the local stack all of them are one."""

DATABASES = ("airflow", "products")
"""What the stack creates on its PostgreSQL server."""


class StackError(Exception):
    """The stack cannot do what was asked; the text says why and what to do."""


@dataclass(frozen=True)
class Ports:
    """Where the programs listen, on 127.0.0.1.

    Attributes:
        airflow: UI and REST API.
        analytics_engine: The SQL API's stand-in.
    """

    airflow: int
    analytics_engine: int

    @classmethod
    def from_environment(cls) -> Ports:
        """``AIRFLOW_PORT`` and ``ANALYTICS_ENGINE_PORT``, or the defaults 8080 and 8790."""
        return cls(int(os.environ.get("AIRFLOW_PORT", "8080")), int(os.environ.get("ANALYTICS_ENGINE_PORT", "8790")))

    @classmethod
    def free(cls) -> Ports:
        """Ports that nothing listens on."""
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            second.bind(("127.0.0.1", 0))
            return cls(first.getsockname()[1], second.getsockname()[1])

    def refuse_taken(self) -> None:
        """Raise StackError for the first port on which something listens."""
        for name, port in asdict(self).items():
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    msg = f"Port {port} is taken by another program. Try: make up {name.upper()}_PORT={port + 1}"
                    raise StackError(msg)


class Stack:
    """One local stack.

    Args:
        home: Everything it keeps stands in this folder.
    """

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()
        self.supervisor = Supervisor(self.home)

    @property
    def running(self) -> bool:
        """Whether ``start`` was called and ``stop`` was not."""
        return self.supervisor.running()

    @property
    def ports(self) -> Ports:
        """Where it listens."""
        return Ports(**self._notes()["ports"])

    @property
    def airflow_url(self) -> str:
        """Of the UI and the REST API."""
        return f"http://localhost:{self.ports.airflow}"

    @property
    def products_url(self) -> str:
        """Libpq URL of the database that stands for all products' databases."""
        return self._postgres.url_of(self._database("products"))

    @property
    def analytics_engine(self) -> AnalyticsEngineControl:
        """Control of the stand-in: write events, order faults."""
        return AnalyticsEngineControl(f"http://127.0.0.1:{self.ports.analytics_engine}")

    @property
    def airflow(self) -> AirflowApi:
        """Airflow's REST API."""
        return AirflowApi(self.airflow_url)

    def start(self, ports: Ports, *, durable: bool, say: Callable[[str], object]) -> None:
        """Start everything, and wait until Airflow has loaded every DAG.

        Args:
            ports: Where to listen.
            durable: Whether the data has to survive a power cut.
            say: Is told each step before it begins.

        Raises:
            StackError: It runs already, a port is taken, or a program does not come up.
        """
        if self.running:
            msg = "The stack is running already. Stop it with: make down"
            raise StackError(msg)
        ports.refuse_taken()
        self.home.mkdir(parents=True, exist_ok=True)
        try:
            say("Starting PostgreSQL")
            server = embedded.start(self.home / "postgres", durable=durable)
            self._write_notes(server, ports)
            self._create_databases(say)
            say("Starting the Analytics Engine stand-in and Airflow")
            self.supervisor.start(self._programs(), self.environment())
            self.analytics_engine.wait_until_ready()
            say("Loading the sample data")
            with psycopg.connect(self.products_url) as connection:
                load(self.analytics_engine, connection)
            say("Waiting for Airflow to load the DAGs")
            self.airflow.wait_until_loaded(dag_ids(), self._refuse_broken)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop everything that ``start`` started; the data stays."""
        self.supervisor.stop()
        if self._notes_file.exists():
            self._postgres.stop()

    def remove(self) -> None:
        """Delete its data; nothing is given time to save it."""
        self.supervisor.kill()
        if self._notes_file.exists():
            if self._postgres.data is None:
                for name in DATABASES:
                    self._postgres.drop_database(self._database(name))
            self._postgres.stop("immediate")
        shutil.rmtree(self.home, ignore_errors=True)

    def environment(self) -> dict[str, str]:
        """What a program needs in its environment to be part of this stack: Airflow's configuration and connections."""
        secret = self._secret
        airflow_database = urlsplit(self._postgres.url_of(self._database("airflow")))
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
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__FERNET_KEY": secret(
                "fernet_key", lambda: base64.urlsafe_b64encode(os.urandom(32)).decode()
            ),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{ports.airflow}/execution/",
            # Whoever reaches 127.0.0.1 on this machine is its user: nobody has to log in.
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(ports.airflow),
            "AIRFLOW__API__BASE_URL": self.airflow_url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__SECRET_KEY": secret("secret_key", secrets.token_hex),
            "AIRFLOW__API_AUTH__JWT_SECRET": secret("jwt_secret", partial(secrets.token_hex, 64)),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": urlunsplit(airflow_database._replace(scheme="postgresql+psycopg2")),
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
            "CRON_SECRET": secret("cron_secret", secrets.token_hex),
            # The defaults were made for a Worker's CPU limit, and starve.
            "MAX_TASKS_PER_RUN": "100000",
            "MAX_WINDOWS_PER_TASK": "5000",
            **postgres_environment(self.products_url),
        }

    def _create_databases(self, say: Callable[[str], object]) -> None:
        for name in DATABASES:
            self._postgres.ensure_database(self._database(name))
        say("Creating Airflow's database, migrating the products'")
        with ThreadPoolExecutor() as threads:
            airflow = threads.submit(self.run, "airflow", "db", "migrate")
            for database in databases():
                say(f"  {migrate(partial(psycopg.connect, self.products_url), database)}")
            airflow.result()

    def run(self, *command: str) -> str:
        """Run a program as part of this stack and return what it printed.

        Raises:
            StackError: It failed; the text ends with what it printed.
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
            "api-server": ["airflow", "api-server"],
            "dag-processor": ["airflow", "dag-processor"],
            "scheduler": ["airflow", "scheduler", "--skip-serve-logs"],
            "triggerer": ["airflow", "triggerer", "--skip-serve-logs"],
        }

    def _refuse_broken(self) -> None:
        if broken := self.supervisor.broken():
            ends = "\n\n".join(f"{name} printed last:\n{end}" for name, end in broken.items())
            msg = f"{', '.join(broken)} did not come up. The whole output is in {self.home / 'logs'}\n\n{ends}"
            raise StackError(msg)

    def _postgres_connection(self) -> str:
        parts = conninfo_to_dict(self.products_url)
        names = {"user": "login", "password": "password", "host": "host", "port": "port", "dbname": "schema"}
        connection = {names[key]: value for key, value in parts.items() if key in names}
        extra = {key: value for key, value in parts.items() if key not in names}
        return json.dumps({"conn_type": "postgres", **connection, "extra": extra})

    def _secret(self, name: str, generate: Callable[[], str]) -> str:
        path = self.home / "secrets" / name
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.write_text(generate())
        return path.read_text()

    def _database(self, name: str) -> str:
        return f"aggregator_{self.home.name}_{name}"

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
        self._notes_file.touch(mode=0o600)  # the URL of an existing server may hold a password
        self._notes_file.write_text(json.dumps(notes))


def dag_ids() -> set[str]:
    """The DAGs of the repository: one a file."""
    return {path.stem for path in (REPOSITORY / "dags").glob("*.py")}


def postgres_environment(url: str) -> dict[str, str]:
    """The variables with which ``psql`` and its kin find the database of ``url``."""
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}
    return {names[key]: str(value) for key, value in conninfo_to_dict(url).items() if key in names and value}
