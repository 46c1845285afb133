"""The database of alerts, and somebody who receives them."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import psycopg
import pytest

from aggregator.migrations import migrate

if TYPE_CHECKING:
    from pytest_httpserver import HTTPServer

PATH = "services/T000/B000/webhook-marker"


@pytest.fixture
def ops(monkeypatch, database_url: str, connection: psycopg.Connection) -> psycopg.Connection:
    """The database of the alerts."""
    migrate(partial(psycopg.connect, database_url), "ops")
    monkeypatch.setenv("AIRFLOW_CONN_OPS_DB", database_url)
    return connection


@pytest.fixture
def receiver(monkeypatch, httpserver: HTTPServer) -> HTTPServer:
    """What ``alerts_webhook`` leads to; it refuses everything until a test says otherwise."""
    host = httpserver.url_for("").rstrip("/")
    monkeypatch.setenv("AIRFLOW_CONN_ALERTS_WEBHOOK", json.dumps({"conn_type": "http", "host": host, "password": PATH}))
    return httpserver
