"""Longer time limits, so that a busy machine makes no test fail; and Airflow's API server with users."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from aggregator.alerts import freshness
from aggregator.web import freshness as freshness_api
from aggregator.web import health
from aggregator.web.operations import database, overview

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi.testclient import TestClient
    from httpx import Response

PATIENCE = 120.0

OPERATIONS = "/api/operations"


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the time limits of all responses; a test of a limit sets its own."""
    patience = timedelta(seconds=PATIENCE)
    monkeypatch.setattr(health, "QUERY_TIMEOUT", PATIENCE)
    monkeypatch.setattr(freshness, "QUERY_TIMEOUT", patience)
    monkeypatch.setattr(freshness, "TIME_LIMIT", patience)
    monkeypatch.setattr(overview, "FRESHNESS_TIMEOUT", patience)
    monkeypatch.setattr(database, "STATEMENT_TIMEOUT", patience)
    monkeypatch.setattr(database, "REQUEST_TIMEOUT", PATIENCE)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """No results and no connections of an earlier test: each test has databases of its own."""
    freshness_api.forget()
    yield
    for name in ("market", "clicks", "analytics", "telemetry", "kpi", "ops"):
        database.database(f"{name}_db").close()


@dataclass
class Operations:
    """Airflow's API server, and the token of a user for each role."""

    client: TestClient
    tokens: dict[str, str]

    def get(
        self, path: str, user: str | None = "admin", headers: dict[str, str] | None = None, **params: Any
    ) -> Response:
        """Send GET as a user."""
        token = {"Authorization": f"Bearer {self.tokens[user]}"} if user else {}
        response: Response = self.client.get(f"{OPERATIONS}{path}", params=params, headers={**token, **(headers or {})})
        return response

    def read(self, path: str, **params: Any) -> Any:
        """Return the JSON of a successful request."""
        response = self.get(path, **params)
        assert response.status_code == 200, response.text
        return response.json()


@pytest.fixture(scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operations]:
    # This import takes seconds, and only some tests need it.
    from dev import api_server  # noqa: PLC0415

    with api_server.running(tmp_path_factory.mktemp("airflow")) as server:
        yield Operations(server.client, server.tokens)


@pytest.fixture
def operations(_server: Operations, monkeypatch: pytest.MonkeyPatch) -> Operations:
    """The Operations API in Airflow's API server. No database is connected."""
    for name in ("market", "clicks", "analytics", "telemetry", "kpi", "ops"):
        monkeypatch.delenv(f"AIRFLOW_CONN_{name.upper()}_DB", raising=False)
    return _server
