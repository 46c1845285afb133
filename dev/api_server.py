"""Airflow's API server with our plugin in this process, and users with different rights."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from unittest.mock import patch

from airflow import models, settings
from airflow.api_fastapi.app import create_app, get_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.models.base import Base
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.models.team import Team
from fastapi.testclient import TestClient
from sqlalchemy import NullPool, create_engine
from sqlalchemy.orm import Session, sessionmaker

from aggregator.core.catalog import CATALOG

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MARKET_DAG = "ohlcv_aggregation"
"""The only DAG that the user ``market`` may read."""


@dataclass(frozen=True)
class ApiServer:
    """A client of the server.

    Attributes:
        client: It follows no redirects, and raises no exception of the server.
        tokens: User → bearer token: ``admin``, ``market`` (see ``MARKET_DAG``) and ``nobody``, who has no role.
    """

    client: TestClient
    tokens: dict[str, str]


@contextmanager
def running(folder: Path) -> Iterator[ApiServer]:
    """Run the server with a database of its own, which has the DAGs of the catalog.

    Args:
        folder: Folder for the database.
    """
    engine = create_engine(f"sqlite:///{folder / 'airflow.db'}", poolclass=NullPool)
    models.import_all_models()  # type: ignore[no-untyped-call]
    Base.metadata.create_all(engine)
    sessions = sessionmaker(engine)
    with (
        patch.multiple(settings, Session=sessions, NonScopedSession=sessions),
        patch.dict("os.environ", {"AIRFLOW__API_AUTH__JWT_SECRET": "only-for-this-process-" * 4}),
    ):
        with Session(engine) as session:
            for name in ("market", "others"):
                bundle = DagBundleModel(name=name)
                bundle.teams = [Team(name=name)]
                session.add(bundle)
                session.flush()
                session.add_all(
                    DagModel(dag_id=dag_id, bundle_name=name)  # type: ignore[no-untyped-call]
                    for dag_id in CATALOG
                    if (dag_id == MARKET_DAG) == (name == "market")
                )
            session.commit()
        # Airflow keeps the teams of DAGs by id, also those of another database.
        DagModel.get_team_name.cache.clear()
        client = TestClient(create_app(apps="core"), follow_redirects=False, raise_server_exceptions=False)
        users = {
            "admin": SimpleAuthManagerUser(username="admin", role="admin"),
            "market": SimpleAuthManagerUser(username="market", role="viewer", teams=["market"]),
            "nobody": SimpleAuthManagerUser(username="nobody", role=None),
        }
        yield ApiServer(client, {name: get_auth_manager().generate_jwt(user) for name, user in users.items()})
