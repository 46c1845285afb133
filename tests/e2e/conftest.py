"""A whole Airflow on the sample data, booted once: scheduler, DAG processor, triggerer, API server, all real."""

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
"""More than these tests take."""


@pytest.fixture(scope="session")
def receiver() -> Iterator[AlertsReceiver]:
    """What alerts are sent to: it accepts them unless a test says otherwise."""
    with closing(AlertsReceiver()) as receiver:
        yield receiver


class Statsd(UDPServer):
    """A StatsD server that keeps every line it is sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), BaseRequestHandler)
        self.lines: list[str] = []

    def finish_request(self, request: Any, client_address: Any) -> None:
        self.lines += request[0].decode().splitlines()


@pytest.fixture(scope="session")
def statsd() -> Iterator[Statsd]:
    """What metrics are sent to, from the first moment on."""
    with Statsd() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def probes(tmp_path_factory) -> Path:
    """The folder whose files say what the DAGs of ``tests/e2e/dags`` do."""
    return tmp_path_factory.mktemp("probes")


@pytest.fixture(scope="session")
def stack(receiver: AlertsReceiver, statsd: Statsd, probes: Path) -> Iterator[Stack]:
    configuration = {
        # As with thousands of symbols: OHLCV is shared out.
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
    # Not below pytest's own folder: pytest closes that to the user whom PostgreSQL runs as, whenever it starts.
    stack = Stack(Path(tempfile.mkdtemp(prefix="aggregator-e2e-")), configuration=configuration)
    try:
        stack.start(Ports.free(), durable=False, say=print)
        (stack.home / "secrets" / "alerts_webhook").write_text(alerts_receiver.SECRET)
        # At once: their deadline passes while other tests are at work.
        switch_on(stack, {"probe_late", "probe_failed", "probe_retried"})
        yield stack
    finally:
        stack.remove()


def undisturbed() -> None:
    """At noon the schedule would send every KPI; at midnight a day begins, on which each may be sent once more."""
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
