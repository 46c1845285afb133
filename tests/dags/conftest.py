"""What the DAGs' tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from aggregator.migrations import migrate

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def analytics_db(monkeypatch, database_url: str, connection: psycopg.Connection) -> psycopg.Connection:
    """An autocommit connection to the migrated database of ``analytics_db``, on a server that is not in UTC."""
    migrate(lambda: psycopg.connect(database_url), "analytics")
    connection.execute(f"alter database {connection.info.dbname} set timezone to 'Asia/Kolkata'")
    monkeypatch.setenv("AIRFLOW_CONN_ANALYTICS_DB", database_url)
    return connection


@pytest.fixture
def without_waiting(monkeypatch) -> Callable[..., None]:
    """Makes the hooks of a class lose no time between tries: waits are the hook's own tests' business."""

    def make(hook_class: Any, **options: Any) -> None:
        defaults = {**hook_class.__init__.__kwdefaults__, "sleep": lambda _: None, **options}
        monkeypatch.setattr(hook_class.__init__, "__kwdefaults__", defaults)

    return make
