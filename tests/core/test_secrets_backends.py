"""A missing secret is distinguished from a backend that fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from airflow.sdk import BaseHook
from airflow.sdk.bases.secrets_backend import BaseSecretsBackend
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.execution_time import supervisor

from aggregator.analytics_engine.hook import AnalyticsEngineHook
from aggregator.core.connections import check_backends
from aggregator.core.errors import AggregatorError, PermanentError, TransientError, UnknownConnectionError
from aggregator.n8n.hook import N8nHook
from aggregator.postgres.hook import PostgresTransactionHook

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = "secret-word"


class Backend(BaseSecretsBackend):
    """A backend of another library that keeps connections only."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    def get_conn_value(self, conn_id: str, team_name: str | None = None) -> None:
        if self._error:
            raise self._error


def never(_seconds: float) -> None:
    """Replacement of ``time.sleep``."""


HOOKS: dict[str, Callable[[], object]] = {
    "market_db": lambda: PostgresTransactionHook("market_db").connect(),
    "n8n": lambda: N8nHook(sleep=never).post("https://n8n.example.com/webhook/x", {}, idempotency_key="k"),
    "analytics_engine": lambda: AnalyticsEngineHook(sleep=never).stream("select 1 as n format JSON").__enter__(),
}
"""Connection → a call that reads it."""


def use(monkeypatch: pytest.MonkeyPatch, *backends: BaseSecretsBackend) -> None:
    for conn_id in HOOKS:
        monkeypatch.delenv(f"AIRFLOW_CONN_{conn_id.upper()}", raising=False)
    monkeypatch.setattr(supervisor, "ensure_secrets_backend_loaded", lambda: list(backends))


@pytest.mark.parametrize("conn_id", HOOKS)
@pytest.mark.parametrize(
    ("error", "expected"), [(ConnectionError(SECRET), TransientError), (KeyError(SECRET), PermanentError)]
)
def test_connection_is_not_unknown_if_a_backend_fails(
    monkeypatch: pytest.MonkeyPatch, conn_id: str, error: Exception, expected: type[AggregatorError]
) -> None:
    use(monkeypatch, Backend(), Backend(error))
    with pytest.raises(AirflowNotFoundException):
        BaseHook.get_connection(conn_id)
    with pytest.raises(expected, match=rf"Backend failed \({type(error).__name__}\)") as raised:
        HOOKS[conn_id]()
    assert not isinstance(raised.value, UnknownConnectionError)
    assert SECRET not in str(raised.value)


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
