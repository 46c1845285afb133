"""Fixtures of the DAGs' tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg


@pytest.fixture
def analytics_db(migrated: Callable[..., psycopg.Connection]) -> psycopg.Connection:
    """An autocommit connection to the migrated database of ``analytics_db``, on a server that is not in UTC."""
    connection = migrated("analytics")
    connection.execute(f"alter database {connection.info.dbname} set timezone to 'Asia/Kolkata'")
    return connection


@pytest.fixture
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let hooks of a class retry without waiting; the hooks' own tests cover the waits."""

    def make(hook_class: Any, **options: Any) -> None:
        defaults = {**hook_class.__init__.__kwdefaults__, "sleep": lambda _: None, **options}
        monkeypatch.setattr(hook_class.__init__, "__kwdefaults__", defaults)

    return make
