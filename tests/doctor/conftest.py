"""An installation in which everything works: PostgreSQL, the stand-ins, Airflow's database, a receiver of alerts."""

from __future__ import annotations

import json
import os
import uuid
from functools import partial
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from aggregator.core.catalog import CATALOG
from aggregator.postgres.migrations import databases, migrate
from dev.n8n.fixtures import KEY
from dev.sample import kpis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_httpserver import HTTPServer

    from dev.analytics_engine.client import AnalyticsEngineControl
    from dev.n8n.client import N8nControl
    from dev.postgres import Postgres

PATH = "services/T000/B000/webhook-marker"
TOKEN = "t0ken-That_must.not.be.seen"
ROLE = f"doctor_{os.getpid()}"
PASSWORD = "p4ssword-That_must.not.be.seen"
SECRETS = (PATH, TOKEN, KEY, PASSWORD)

_GRANTS = f"""
create role {ROLE} login;
grant usage on schema analytics, delivery, kpi, lead_intelligence, migrations, ohlcv, ops, public, scoring to {ROLE};
grant select, insert, update, delete on all tables in schema
    analytics, delivery, kpi, lead_intelligence, migrations, ohlcv, ops, public, scoring to {ROLE};
grant execute on all functions in schema kpi, ohlcv, ops to {ROLE};
alter table ohlcv.candles owner to {ROLE};
"""


@pytest.fixture(scope="module")
def template(postgres: Postgres) -> Iterator[str]:
    """A database with all products, and a role that has only rights that it needs."""
    name = f"doctor_{os.getpid()}_{uuid.uuid4().hex}"
    url = postgres.ensure_database(name)
    for database in databases():
        migrate(partial(psycopg.connect, url), database)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_GRANTS)
    yield name
    postgres.drop_database(name)
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"drop role {ROLE}")


@pytest.fixture
def products_url(postgres: Postgres, template: str) -> Iterator[str]:
    """URL of a copy of that database, which a test may break."""
    name = f"{template}_copy"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"create database {name} template {template}")
    yield postgres.url_of(name)
    postgres.drop_database(name)


@pytest.fixture
def products(products_url: str) -> Iterator[psycopg.Connection]:
    """A superuser's connection to the products' database, to break it."""
    with psycopg.connect(products_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def airflow_database(metadata_database: None) -> None:
    """Airflow's database with all DAGs, none of them paused."""
    from airflow.models.dag import DagModel  # noqa: PLC0415
    from airflow.models.dagbundle import DagBundleModel  # noqa: PLC0415
    from airflow.models.errors import ParseImportError  # noqa: PLC0415
    from airflow.utils.session import create_session  # noqa: PLC0415

    with create_session() as session:
        tables = [model.__table__ for model in (DagBundleModel, DagModel, ParseImportError)]
        DagModel.metadata.create_all(session.connection(), tables)
        session.add_all(
            DagModel(dag_id=dag_id, bundle_name="dags-folder", is_paused=False, is_stale=False)  # type: ignore[no-untyped-call]
            for dag_id in CATALOG
        )


@pytest.fixture
def healthy(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    products_url: str,
    airflow_database: None,
    analytics_engine: AnalyticsEngineControl,
    n8n: N8nControl,
    httpserver: HTTPServer,
) -> None:
    """An installation without a warning."""
    parts = conninfo_to_dict(products_url)
    for database in databases():
        connect(
            monkeypatch,
            f"{database}_db",
            conn_type="postgres",
            host=parts["host"],
            port=int(parts.get("port") or 5432),
            login=ROLE,
            password=PASSWORD,
            schema=parts["dbname"],
        )
    extra = {"account_id": "local"}
    connect(monkeypatch, "analytics_engine", conn_type="http", host=analytics_engine.url, password=TOKEN, extra=extra)
    analytics_engine.write("clicks", [{"timestamp": "2026-11-15 10:00:00", "blob4": "hire"}])
    connect(monkeypatch, "n8n", conn_type="http", password=KEY, extra={"allowed_origins": [n8n.url]})
    n8n.register(kpis.workflows())
    monkeypatch.setenv("AIRFLOW_VAR_KPI-REGISTRY", json.dumps(kpis.registry(n8n.url)))
    receiver = httpserver.url_for("").rstrip("/")
    connect(monkeypatch, "alerts_webhook", conn_type="http", host=receiver, password=PATH)
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "1")
    monkeypatch.setenv("AIRFLOW__CORE__MP_START_METHOD", "fork")
    monkeypatch.setenv("AIRFLOW__LOGGING__BASE_LOG_FOLDER", str(tmp_path))
    monkeypatch.setattr("aggregator.doctor.installation.SMALL", 0)  # the test machine's disk may be almost full
    monkeypatch.setattr("aggregator.doctor.installation.SMALLEST", 0)


def connect(monkeypatch: pytest.MonkeyPatch, name: str, **fields: object) -> None:
    """Set an Airflow connection."""
    monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(fields))
