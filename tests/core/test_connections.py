"""Every hook reports what is wrong with a connection, without its values. A backend that fails is not "not found"."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from airflow.sdk import BaseHook
from airflow.sdk.bases.secrets_backend import BaseSecretsBackend
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.execution_time import supervisor
from psycopg.conninfo import conninfo_to_dict

from aggregator.analytics_engine.hook import AnalyticsEngineHook
from aggregator.core import connections
from aggregator.core.connections import check_backends
from aggregator.core.errors import AggregatorError, PermanentError, TransientError, UnknownConnectionError
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


class Backend(BaseSecretsBackend):
    """A backend of another library that keeps connections only."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    def get_conn_value(self, conn_id: str, team_name: str | None = None) -> None:
        if self._error:
            raise self._error


def never(_seconds: float) -> None:
    """Replacement of ``time.sleep``."""


READERS: dict[str, Callable[[], object]] = {
    "market_db": lambda: PostgresTransactionHook("market_db").connect(),
    "n8n": lambda: N8nHook(sleep=never).post("https://n8n.example.com/webhook/x", {}, idempotency_key="k"),
    "analytics_engine": lambda: AnalyticsEngineHook(sleep=never).stream("select 1 as n format JSON").__enter__(),
}
"""Connection → a call that reads it."""


def use(monkeypatch: pytest.MonkeyPatch, *backends: BaseSecretsBackend) -> None:
    for conn_id in READERS:
        monkeypatch.delenv(f"AIRFLOW_CONN_{conn_id.upper()}", raising=False)
    monkeypatch.setattr(supervisor, "ensure_secrets_backend_loaded", lambda: list(backends))


@pytest.mark.parametrize("conn_id", READERS)
@pytest.mark.parametrize(
    ("error", "expected"), [(ConnectionError(MARKER), TransientError), (KeyError(MARKER), PermanentError)]
)
def test_connection_is_not_unknown_if_a_backend_fails(
    monkeypatch: pytest.MonkeyPatch, conn_id: str, error: Exception, expected: type[AggregatorError]
) -> None:
    use(monkeypatch, Backend(), Backend(error))
    with pytest.raises(AirflowNotFoundException):
        BaseHook.get_connection(conn_id)
    with pytest.raises(expected, match=rf"Backend failed \({type(error).__name__}\)") as raised:
        READERS[conn_id]()
    assert not isinstance(raised.value, UnknownConnectionError)
    assert MARKER not in str(raised.value)


def test_connection_is_unknown_if_every_backend_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Backend(), Backend())
    with pytest.raises(UnknownConnectionError):
        PostgresTransactionHook("market_db").connect()


def test_backend_without_variables_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Backend())
    check_backends(lambda backend: backend.get_variable(key="x"))


@pytest.mark.usefixtures("no_metadata_database")
def test_database_of_airflow_that_is_down_is_transient() -> None:
    with pytest.raises(TransientError, match=r"MetastoreBackend failed \(OperationalError\)"):
        check_backends(lambda backend: backend.get_variable(key="x"))
