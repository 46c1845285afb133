"""Somebody who receives alerts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_httpserver import HTTPServer

PATH = "services/T000/B000/webhook-marker"


@pytest.fixture
def receiver(monkeypatch, httpserver: HTTPServer) -> HTTPServer:
    """What ``alerts_webhook`` leads to; it refuses everything until a test says otherwise."""
    host = httpserver.url_for("").rstrip("/")
    monkeypatch.setenv("AIRFLOW_CONN_ALERTS_WEBHOOK", json.dumps({"conn_type": "http", "host": host, "password": PATH}))
    return httpserver
