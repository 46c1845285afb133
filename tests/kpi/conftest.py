"""A migrated KPI database."""

from __future__ import annotations

import psycopg
import pytest

from aggregator.migrations import migrate


@pytest.fixture
def kpi_db(monkeypatch, database_url: str, connection: psycopg.Connection) -> psycopg.Connection:
    """An autocommit connection to the migrated database of ``kpi_db``."""
    migrate(lambda: psycopg.connect(database_url), "kpi")
    monkeypatch.setenv("AIRFLOW_CONN_KPI_DB", database_url)
    return connection
