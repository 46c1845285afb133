"""Shared fixtures: a real PostgreSQL, and an Airflow that is configured before its first import."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import uuid
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

REPOSITORY = Path(__file__).parents[1]

# Airflow reads these variables when it is imported, before any fixture runs.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="aggregator-airflow-")
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(REPOSITORY / "dags")
os.environ["AIRFLOW__CORE__PLUGINS_FOLDER"] = str(REPOSITORY / "plugins")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"

import psycopg  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402
from psycopg import sql  # noqa: E402

from aggregator.postgres.migrations import migrate  # noqa: E402
from dev import pgbouncer  # noqa: E402
from dev import postgres as embedded  # noqa: E402
from dev.analytics_engine.fixtures import analytics_engine, analytics_engine_process  # noqa: E402
from dev.n8n.fixtures import n8n, n8n_process  # noqa: E402

__all__ = ["analytics_engine", "analytics_engine_process", "n8n", "n8n_process"]

# With Hypothesis's deadline, tests would depend on the speed of the machine.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow.dag_processing.dagbag import DagBag
    from sqlalchemy import Engine

    from dev.postgres import Postgres


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--pooler`` connects through PgBouncer; ``--needs-postgres`` selects tests that use PostgreSQL."""
    parser.addoption("--pooler", action="store_true", help="connect Airflow's connections through PgBouncer")
    parser.addoption("--needs-postgres", action="store_true", help="only tests that use a PostgreSQL server")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``--needs-postgres``, deselect tests that do not use PostgreSQL."""
    if config.getoption("needs_postgres"):
        servers = {"postgres", "own_postgres"}
        items[:] = [item for item in items if servers & {*getattr(item, "fixturenames", ())}]


def pytest_unconfigure() -> None:
    """Remove Airflow's home; every process of a parallel run has its own."""
    shutil.rmtree(os.environ["AIRFLOW_HOME"], ignore_errors=True)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def dag_bag(repository: Path) -> DagBag:
    """The DAGs, loaded by Airflow's code."""
    # The import takes a second, and only some tests need it.
    from airflow.dag_processing.dagbag import DagBag  # noqa: PLC0415

    return DagBag(str(repository / "dags"), collect_dags=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server for the whole session. Tests that restart a server use ``own_postgres``."""
    with folder_for_postgres() as folder:
        server = embedded.start(folder / "data", durable=False)
        yield server
        server.stop("immediate")


@contextmanager
def folder_for_postgres() -> Iterator[Path]:
    """A folder that other users can read: the server of a root user runs as another user."""
    with tempfile.TemporaryDirectory(prefix="aggregator-postgres-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def pooler(postgres: Postgres) -> Iterator[Callable[[str], str]]:
    """Convert the URL of a database into one through PgBouncer in transaction mode."""
    with folder_for_postgres() as folder:
        folder.chmod(0o755)
        try:
            with pgbouncer.running(postgres, folder) as url:
                address = urlsplit(url)
                yield lambda direct: urlunsplit(address._replace(path=urlsplit(direct).path))
        except pgbouncer.UnavailableError as error:
            pytest.skip(str(error))


@pytest.fixture(scope="session")
def connection_url(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Convert the URL of a database into the one of Airflow's connections."""
    if request.config.getoption("pooler"):
        through_pooler: Callable[[str], str] = request.getfixturevalue("pooler")
        return through_pooler
    return str


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """An embedded server for one test, which may restart it."""
    with folder_for_postgres() as folder:
        server = embedded.start_embedded(folder / "data")
        yield server
        server.stop("immediate")


@pytest.fixture(scope="session")
def databases(postgres: Postgres) -> Iterator[list[str]]:
    """Empty, unused databases that tests take and return. A new one takes at least 0.1 s."""
    names: list[str] = []
    yield names
    for name in names:
        postgres.drop_database(name)


@pytest.fixture
def database_url(postgres: Postgres, databases: list[str]) -> Iterator[str]:
    """URL of an empty database."""
    # Several sessions may share an existing server.
    name = databases.pop() if databases else f"test_{os.getpid()}_{uuid.uuid4().hex}"
    url = postgres.ensure_database(name)
    yield url
    with psycopg.connect(url, autocommit=True) as connection:
        empty(connection)
    databases.append(name)


@pytest.fixture
def encoded_database(request: pytest.FixtureRequest, postgres: Postgres) -> Iterator[str]:
    """URL of an empty database whose encoding is the fixture's parameter."""
    name = f"test_{os.getpid()}_{request.param.lower()}"
    create = sql.SQL("create database {} template template0 encoding {} locale_provider libc locale 'C'")
    with psycopg.connect(postgres.url, autocommit=True) as server:
        server.execute(create.format(sql.Identifier(name), request.param))
    yield postgres.url_of(name)
    postgres.drop_database(name)


def empty(connection: psycopg.Connection) -> None:
    """Empty a database: end other sessions, drop schemas and reset its settings."""
    connection.execute(
        """
        select pg_terminate_backend(pid, 10000) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()
        """
    )
    schemas = connection.execute(
        "select nspname from pg_namespace where nspname <> 'information_schema' and nspname !~ '^pg_'"
    ).fetchall()
    for (schema,) in schemas:
        connection.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(schema)))
    connection.execute("create schema public authorization pg_database_owner")
    connection.execute("grant usage on schema public to public")
    connection.execute(sql.SQL("alter database {} reset all").format(sql.Identifier(connection.info.dbname)))


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    """An autocommit connection to ``database_url``."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def migrated(
    monkeypatch: pytest.MonkeyPatch,
    database_url: str,
    connection: psycopg.Connection,
    connection_url: Callable[[str], str],
) -> Callable[..., psycopg.Connection]:
    """Apply the migrations of the given databases to ``database_url``, and point their connections to it."""

    def migrated(*names: str) -> psycopg.Connection:
        for name in names:
            migrate(partial(psycopg.connect, connection_url(database_url)), name)
            monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}_DB", connection_url(database_url))
        return connection

    return migrated


def _migrated_once(postgres: Postgres, name: str) -> Iterator[str]:
    database = f"test_{os.getpid()}_{uuid.uuid4().hex}"
    url = postgres.ensure_database(database)
    migrate(partial(psycopg.connect, url), name)
    yield url
    postgres.drop_database(database)


@pytest.fixture(scope="session")
def kpi_database_url(postgres: Postgres) -> Iterator[str]:
    """URL of the migrated database of ``kpi_db``, shared by all tests."""
    yield from _migrated_once(postgres, "kpi")


@pytest.fixture(scope="session")
def ops_database_url(postgres: Postgres) -> Iterator[str]:
    """URL of the migrated database of ``ops_db``, shared by all tests."""
    yield from _migrated_once(postgres, "ops")


@pytest.fixture
def kpi_db(
    monkeypatch: pytest.MonkeyPatch, kpi_database_url: str, connection_url: Callable[[str], str]
) -> Iterator[psycopg.Connection]:
    """An autocommit connection to the database of ``kpi_db``, without jobs."""
    monkeypatch.setenv("AIRFLOW_CONN_KPI_DB", connection_url(kpi_database_url))
    with psycopg.connect(kpi_database_url, autocommit=True) as connection:
        connection.execute("truncate kpi.jobs cascade")
        yield connection


@pytest.fixture
def ops(
    monkeypatch: pytest.MonkeyPatch, ops_database_url: str, connection_url: Callable[[str], str]
) -> Iterator[psycopg.Connection]:
    """An autocommit connection to the database of ``ops_db``, without alerts and dead letters."""
    monkeypatch.setenv("AIRFLOW_CONN_OPS_DB", connection_url(ops_database_url))
    with psycopg.connect(ops_database_url, autocommit=True) as connection:
        connection.execute("truncate ops.alerts, ops.dead_letters restart identity cascade")
        yield connection


@pytest.fixture(autouse=True)
def _process_context(monkeypatch: pytest.MonkeyPatch) -> None:
    # Commands that read Airflow's database set this variable for their process.
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "")
    monkeypatch.delenv("_AIRFLOW_PROCESS_CONTEXT")


@pytest.fixture
def metadata_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Airflow's own database without connections and variables, in a process that reads them from it."""
    from airflow.models.connection import Connection  # noqa: PLC0415
    from airflow.models.variable import Variable  # noqa: PLC0415

    engine = _use_metadata_database(monkeypatch, f"sqlite:///{tmp_path / 'airflow.db'}")
    Connection.metadata.create_all(engine, [Connection.__table__, Variable.__table__])


@pytest.fixture
def no_metadata_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose connections and variables are in a database of Airflow that is down."""
    _use_metadata_database(monkeypatch, "postgresql+psycopg2://someone:secret-word@127.0.0.1:1/airflow")


def _use_metadata_database(monkeypatch: pytest.MonkeyPatch, url: str) -> Engine:
    from airflow import settings  # noqa: PLC0415
    from sqlalchemy import NullPool, create_engine  # noqa: PLC0415
    from sqlalchemy.orm import sessionmaker  # noqa: PLC0415

    engine = create_engine(url, poolclass=NullPool)
    for name in ("Session", "NonScopedSession"):
        monkeypatch.setattr(settings, name, sessionmaker(engine))
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    return engine


@pytest.fixture
def mute_server() -> Iterator[int]:
    """A port of a server that accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]
