"""What the DAGs' tests share."""

from __future__ import annotations

import psycopg
import pytest

from aggregator.migrations import migrate


@pytest.fixture
def analytics_db(monkeypatch, database_url: str, connection: psycopg.Connection) -> psycopg.Connection:
    """An autocommit connection to the migrated database of ``analytics_db``, on a server that is not in UTC."""
    migrate(lambda: psycopg.connect(database_url), "analytics")
    connection.execute(f"alter database {connection.info.dbname} set timezone to 'Asia/Kolkata'")
    monkeypatch.setenv("AIRFLOW_CONN_ANALYTICS_DB", database_url)
    return connection
