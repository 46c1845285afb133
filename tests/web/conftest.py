"""Longer time limits, so that a busy machine makes no test fail; and Airflow's API server with users."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from aggregator.alerts import freshness
from aggregator.core.catalog import CATALOG
from aggregator.web import freshness as freshness_api
from aggregator.web import health
from aggregator.web.operations import database, overview

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi.testclient import TestClient
    from httpx import Response

PATIENCE = 120.0

OPERATIONS = "/api/operations"

MARKET_DAG = "ohlcv_aggregation"
"""The only DAG of the team ``market``."""


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


@pytest.fixture(scope="session")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operations]:
    # Importing Airflow's models takes seconds, and only some tests need them.
    from airflow import models, settings  # noqa: PLC0415
    from airflow.api_fastapi.app import create_app, get_auth_manager  # noqa: PLC0415
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser  # noqa: PLC0415
    from airflow.models.base import Base  # noqa: PLC0415
    from airflow.models.dag import DagModel  # noqa: PLC0415
    from airflow.models.dagbundle import DagBundleModel  # noqa: PLC0415
    from airflow.models.team import Team  # noqa: PLC0415
    from fastapi.testclient import TestClient  # noqa: PLC0415
    from sqlalchemy import NullPool, create_engine  # noqa: PLC0415
    from sqlalchemy.orm import Session, sessionmaker  # noqa: PLC0415

    engine = create_engine(f"sqlite:///{tmp_path_factory.mktemp('airflow') / 'airflow.db'}", poolclass=NullPool)
    models.import_all_models()  # type: ignore[no-untyped-call]
    Base.metadata.create_all(engine)
    with pytest.MonkeyPatch.context() as patch, Session(engine) as session:
        for name in ("Session", "NonScopedSession"):
            patch.setattr(settings, name, sessionmaker(engine))
        teams = {name: Team(name=name) for name in ("market", "others")}
        bundles = {name: DagBundleModel(name=name) for name in teams}
        for name, bundle in bundles.items():
            bundle.teams = [teams[name]]
        session.add_all([*teams.values(), *bundles.values()])
        session.flush()
        session.add_all(
            DagModel(dag_id=dag_id, bundle_name="market" if dag_id == MARKET_DAG else "others")  # type: ignore[no-untyped-call]
            for dag_id in CATALOG
        )
        session.commit()
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "only-for-tests-" * 6)
        client = TestClient(create_app(apps="core"), follow_redirects=False, raise_server_exceptions=False)
        users = {
            "admin": SimpleAuthManagerUser(username="admin", role="admin"),
            "market": SimpleAuthManagerUser(username="market", role="viewer", teams=["market"]),
            "nobody": SimpleAuthManagerUser(username="nobody", role=None),
        }
        yield Operations(client, {name: get_auth_manager().generate_jwt(user) for name, user in users.items()})


@pytest.fixture
def operations(_server: Operations, monkeypatch: pytest.MonkeyPatch) -> Operations:
    """The Operations API in Airflow's API server. No database is connected."""
    for name in ("market", "clicks", "analytics", "telemetry", "kpi", "ops"):
        monkeypatch.delenv(f"AIRFLOW_CONN_{name.upper()}_DB", raising=False)
    return _server
