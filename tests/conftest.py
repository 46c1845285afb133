"""What every test may use: a real PostgreSQL, and an Airflow configured before its first import."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

REPOSITORY = Path(__file__).parents[1]

# Airflow reads these when it is imported, which is before any fixture runs.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="aggregator-airflow-")
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(REPOSITORY / "dags")
os.environ["AIRFLOW__CORE__PLUGINS_FOLDER"] = str(REPOSITORY / "plugins")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"

import psycopg  # noqa: E402
import pytest  # noqa: E402
from psycopg import sql  # noqa: E402

from dev import postgres as embedded  # noqa: E402
from dev.analytics_engine.fixtures import analytics_engine, analytics_engine_process  # noqa: E402

__all__ = ["analytics_engine", "analytics_engine_process"]

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dev.postgres import Postgres


def pytest_unconfigure() -> None:
    """Remove Airflow's home: every process of a parallel run has made one."""
    shutil.rmtree(os.environ["AIRFLOW_HOME"], ignore_errors=True)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server for the whole session; tests that restart it start one of their own."""
    with folder_for_postgres() as folder:
        server = embedded.start(folder / "data", durable=False)
        yield server
        server.stop("immediate")


@contextmanager
def folder_for_postgres() -> Iterator[Path]:
    """A folder for a server that outlives a test's start: pytest closes its own to all other users whenever it starts.

    As root, the server runs as another user.
    """
    with tempfile.TemporaryDirectory(prefix="aggregator-postgres-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """An embedded server of the test's own, to be restarted."""
    with folder_for_postgres() as folder:
        server = embedded.start_embedded(folder / "data")
        yield server
        server.stop("immediate")


@pytest.fixture(scope="session")
def databases(postgres: Postgres) -> Iterator[list[str]]:
    """Databases that are empty and used by nobody, to be taken and given back: a new one costs 0.1 s and more."""
    names: list[str] = []
    yield names
    for name in names:
        postgres.drop_database(name)


@pytest.fixture
def database_url(postgres: Postgres, databases: list[str]) -> Iterator[str]:
    """URL of an empty database."""
    # An existing server may be shared by several sessions.
    name = databases.pop() if databases else f"test_{os.getpid()}_{uuid.uuid4().hex}"
    url = postgres.ensure_database(name)
    yield url
    with psycopg.connect(url, autocommit=True) as connection:
        empty(connection)
    databases.append(name)


def empty(connection: psycopg.Connection) -> None:
    """Make a database what a new one is: without other sessions, schemas and settings of its own."""
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
    """An autocommit connection to ``database_url``, for arranging and looking."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection
