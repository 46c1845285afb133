"""A secret that is not there is told from one whose backend does not answer."""

from __future__ import annotations

import pytest
from airflow.sdk import BaseHook
from airflow.sdk.bases.secrets_backend import BaseSecretsBackend
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.execution_time import supervisor

from aggregator.errors import AggregatorError, HardError, TransientError, UnknownConnectionError
from aggregator.hooks.postgres import PostgresTransactionHook
from aggregator.secrets_backends import require_answers

SECRET = "secret-word"


class Backend(BaseSecretsBackend):
    """One of somebody else, which keeps connections only."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    def get_conn_value(self, conn_id: str, team_name: str | None = None) -> None:
        if self._error:
            raise self._error


def use(monkeypatch: pytest.MonkeyPatch, *backends: BaseSecretsBackend) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_MARKET_DB", raising=False)
    monkeypatch.setattr(supervisor, "ensure_secrets_backend_loaded", lambda: list(backends))


@pytest.mark.parametrize(
    ("error", "expected"), [(ConnectionError(SECRET), TransientError), (KeyError(SECRET), HardError)]
)
def test_connection_is_not_unknown_if_a_backend_does_not_answer(
    monkeypatch, error: Exception, expected: type[AggregatorError]
) -> None:
    use(monkeypatch, Backend(), Backend(error))
    with pytest.raises(AirflowNotFoundException):
        BaseHook.get_connection("market_db")
    with pytest.raises(expected, match=rf"Backend did not answer \({type(error).__name__}\)") as raised:
        PostgresTransactionHook("market_db").connect()
    assert not isinstance(raised.value, UnknownConnectionError)
    assert SECRET not in str(raised.value)


def test_connection_is_unknown_if_every_backend_answers(monkeypatch) -> None:
    use(monkeypatch, Backend(), Backend())
    with pytest.raises(UnknownConnectionError):
        PostgresTransactionHook("market_db").connect()


def test_backend_that_keeps_connections_only_is_not_asked_for_a_variable(monkeypatch) -> None:
    use(monkeypatch, Backend())
    require_answers(lambda backend: backend.get_variable(key="x"))


@pytest.mark.usefixtures("no_metadata_database")
def test_database_of_airflow_that_is_down_is_transient() -> None:
    with pytest.raises(TransientError, match=r"MetastoreBackend did not answer \(OperationalError\)"):
        require_answers(lambda backend: backend.get_variable(key="x"))
