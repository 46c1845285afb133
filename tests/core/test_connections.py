"""Every hook reports what is wrong with a connection, without its values."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from psycopg.conninfo import conninfo_to_dict

from aggregator.analytics_engine.hook import AnalyticsEngineHook
from aggregator.core import connections
from aggregator.core.errors import PermanentError, TransientError, UnknownConnectionError
from aggregator.n8n.hook import N8nHook
from aggregator.postgres.hook import PostgresTransactionHook
from aggregator.warmup.counter_store import S3CounterStore

if TYPE_CHECKING:
    from collections.abc import Callable

MARKER = "hunter2"


def connect_postgres() -> None:
    PostgresTransactionHook("odd").transaction(timeout=timedelta(minutes=1)).__enter__()


def connect_analytics_engine() -> None:
    with AnalyticsEngineHook("odd").stream("select 1 as n from clicks format JSON"):
        pass


def connect_n8n() -> None:
    N8nHook("odd").post("https://n8n.invalid/webhook/x", {}, idempotency_key="key")


def connect_r2() -> None:
    S3CounterStore("odd").reset_daily_counters([], datetime.now(UTC))


HOOKS = pytest.mark.parametrize("connect", [connect_postgres, connect_analytics_engine, connect_n8n, connect_r2])


@HOOKS
@pytest.mark.parametrize("extra", ['"{}"', '"text"', "[1]", "null", "5", "not json"])
def test_extra_without_a_json_object_is_rejected(
    connect: Callable[[], None], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"conn_type": "generic", "host": "127.0.0.1", "password": "p" * 40, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_ODD", json.dumps(given))
    with pytest.raises(
        PermanentError, match=r"The extra of connection 'odd' is not a JSON object. Set it to an object"
    ):
        connect()


@HOOKS
@pytest.mark.parametrize("password", [f"{MARKER}/x", f"{MARKER}#x", f"{MARKER}?x", f"{MARKER}[x", "12/34"])
def test_password_that_breaks_a_uri_is_rejected_with_how_to_encode_it(
    connect: Callable[[], None], password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ODD", f"postgres://user:{password}@127.0.0.1:1/db")
    with pytest.raises(PermanentError, match=r"Connection 'odd' is malformed.*percent-encode its password") as raised:
        connect()
    assert MARKER not in str(raised.value)


@pytest.mark.parametrize("password", ["12#34", "12?34"])
def test_password_that_hides_the_host_is_rejected_with_how_to_encode_it(
    password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Airflow reads 12 as the port. Nothing shows that the rest is missing.
    monkeypatch.setenv("AIRFLOW_CONN_ODD", f"postgres://localhost:{password}@127.0.0.1:1/db")
    with pytest.raises((TransientError, PermanentError), match="percent-encode its password"):
        connect_postgres()


@pytest.mark.parametrize("password", ["a@b", "a%b", "a:b"])
def test_password_that_needs_no_encoding_is_read(password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ODD", f"postgres://user:{password}@127.0.0.1:1/db")
    assert connections.get("odd").password == password


def test_missing_connection_raises_unknown_connection() -> None:
    with pytest.raises(UnknownConnectionError, match="AIRFLOW_CONN_NOWHERE"):
        connections.get("nowhere")


def test_blanks_around_login_and_password_are_removed_and_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    masked: list[str] = []
    monkeypatch.setattr("airflow.sdk.log.mask_secret", masked.append)
    given = {"conn_type": "generic", "login": " user\n", "password": f"\t{MARKER} \n"}
    monkeypatch.setenv("AIRFLOW_CONN_ODD", json.dumps(given))
    connection = connections.get("odd")
    assert (connection.login, connection.password) == ("user", MARKER)
    assert masked == [MARKER]


def test_database_password_is_sent_without_the_blanks_around_it(
    monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    url = conninfo_to_dict(database_url)
    given = {"conn_type": "postgres", "login": f"{url['user']}\n", "password": f" {MARKER}\n"}
    given |= {"host": str(url["host"]), "schema": str(url["dbname"]), "port": str(url.get("port") or "")}
    monkeypatch.setenv("AIRFLOW_CONN_ODD", json.dumps(given))
    with closing(PostgresTransactionHook("odd").connect()) as connection:
        assert connection.info.password == MARKER
