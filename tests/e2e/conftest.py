"""A complete Airflow with sample data, started once: scheduler, DAG processor, triggerer, API server."""

from __future__ import annotations

import tempfile
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socketserver import BaseRequestHandler, UDPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dev import alerts_receiver
from dev.airflow_api import NotYetError, wait
from dev.alerts_receiver import AlertsReceiver
from dev.stack import REPOSITORY, Ports, Stack, bundles

if TYPE_CHECKING:
    from collections.abc import Iterator


LASTS = timedelta(minutes=7)
"""Upper limit of the duration of these tests."""


@pytest.fixture(scope="session")
def receiver() -> Iterator[AlertsReceiver]:
    """The receiver of alerts. It accepts them unless a test changes that."""
    with closing(AlertsReceiver()) as receiver:
        yield receiver


class Statsd(UDPServer):
    """A StatsD server that keeps every received line."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), BaseRequestHandler)
        self.lines: list[str] = []

    def finish_request(self, request: Any, client_address: Any) -> None:
        self.lines += request[0].decode().splitlines()


@pytest.fixture(scope="session")
def statsd() -> Iterator[Statsd]:
    """The receiver of metrics, running before Airflow starts."""
    with Statsd() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def probes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder whose files control the DAGs of ``tests/e2e/dags``."""
    return tmp_path_factory.mktemp("probes")


@pytest.fixture(scope="session")
def stack(receiver: AlertsReceiver, statsd: Statsd, probes: Path) -> Iterator[Stack]:
    configuration = {
        # Several shards, as with thousands of symbols.
        "OHLCV_SYMBOLS_PER_SHARD": "2",
        "PROBES": str(probes),
        **receiver.environment(),
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
        "AIRFLOW__METRICS__STATSD_PORT": str(statsd.server_address[1]),
        "AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED": "True",
        **bundles({"dags-folder": REPOSITORY / "dags", "probes": REPOSITORY / "tests/e2e/dags"}),
    }
    wait(undisturbed, seconds=2 * LASTS.total_seconds())
    # PostgreSQL's user has no access to pytest's own folder.
    stack = Stack(Path(tempfile.mkdtemp(prefix="aggregator-e2e-")), configuration=configuration)
    try:
        stack.start(Ports.free(), durable=False, say=print)
        (stack.home / "secrets" / "alerts_webhook").write_text(alerts_receiver.SECRET)
        # First, so that their deadline passes while other tests run.
        switch_on(stack, {"probe_late", "probe_failed", "probe_retried"})
        yield stack
    finally:
        stack.remove()


def undisturbed() -> None:
    """Refuse to start shortly before noon or midnight: the schedule would send KPIs during the tests."""
    now = datetime.now(UTC)
    if now.hour // 12 != (now + LASTS).hour // 12:
        msg = "noon or midnight is near"
        raise NotYetError(msg)


def switch_on(stack: Stack, dag_ids: set[str]) -> None:
    stack.airflow.wait_until_loaded(dag_ids)
    for dag_id in dag_ids:
        stack.airflow.patch(f"dags/{dag_id}", is_paused=False)


@pytest.fixture
def products(stack: Stack) -> Iterator[psycopg.Connection]:
    """An autocommit connection to the products' database."""
    with psycopg.connect(stack.products_url, autocommit=True) as connection:
        yield connection
