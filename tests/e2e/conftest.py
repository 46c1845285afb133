"""A whole Airflow on the sample data, booted once: scheduler, DAG processor, triggerer, API server, all real."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import psycopg
import pytest
from pytest_httpserver import HTTPServer

from dev.stack import REPOSITORY, Ports, Stack

if TYPE_CHECKING:
    from collections.abc import Iterator

WEBHOOK = "services/T000/B000/webhook-marker"
"""The path of the receiver of alerts, which is a secret."""


@pytest.fixture(scope="session")
def receiver() -> Iterator[HTTPServer]:
    """What alerts are sent to: it accepts them unless a test says otherwise."""
    with HTTPServer(threaded=True) as server:
        server.expect_request(f"/{WEBHOOK}").respond_with_data("ok")
        yield server


@pytest.fixture(scope="session")
def probes(tmp_path_factory) -> Path:
    """The folder whose files say what the DAGs of ``tests/e2e/dags`` do."""
    return tmp_path_factory.mktemp("probes")


@pytest.fixture(scope="session")
def stack(receiver: HTTPServer, probes: Path) -> Iterator[Stack]:
    connection = {"conn_type": "http", "host": receiver.url_for("").rstrip("/"), "password": WEBHOOK}
    bundles = {"dags-folder": REPOSITORY / "dags", "probes": REPOSITORY / "tests/e2e/dags"}
    environment = {
        "PROBES": str(probes),
        "AIRFLOW_CONN_ALERTS_WEBHOOK": json.dumps(connection),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(
            [
                {
                    "name": name,
                    "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
                    "kwargs": {"path": str(path)},
                }
                for name, path in bundles.items()
            ]
        ),
    }
    with mock.patch.dict(os.environ, environment):
        yield from _stack()


def _stack() -> Iterator[Stack]:
    # Not below pytest's own folder: pytest closes that to the user whom PostgreSQL runs as, whenever it starts.
    stack = Stack(Path(tempfile.mkdtemp(prefix="aggregator-e2e-")))
    try:
        stack.start(Ports.free(), durable=False, say=print)
        (stack.home / "secrets" / "alerts_webhook").write_text(WEBHOOK)
        yield stack
    finally:
        stack.remove()


@pytest.fixture
def products(stack: Stack) -> Iterator[psycopg.Connection]:
    """An autocommit connection to the products' database."""
    with psycopg.connect(stack.products_url, autocommit=True) as connection:
        yield connection
