"""The DAGs, loaded as Airflow loads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from airflow.dag_processing.dagbag import DagBag

from aggregator.migrations import migrate

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def dag_bag(repository: Path) -> DagBag:
    return DagBag(str(repository / "dags"), collect_dags=True)


@pytest.fixture
def analytics_db(monkeypatch, database_url: str, connection: psycopg.Connection) -> psycopg.Connection:
    """An autocommit connection to the migrated database of ``analytics_db``, on a server that is not in UTC."""
    migrate(lambda: psycopg.connect(database_url), "analytics")
    connection.execute(f"alter database {connection.info.dbname} set timezone to 'Asia/Kolkata'")
    monkeypatch.setenv("AIRFLOW_CONN_ANALYTICS_DB", database_url)
    return connection
