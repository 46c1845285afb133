"""Fixtures of the tests of OHLCV."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.market_data import DAY

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg


@pytest.fixture
def market(migrated: Callable[..., psycopg.Connection]) -> psycopg.Connection:
    """An autocommit connection to a migrated, empty database with one month of partitions."""
    connection = migrated("market")
    connection.execute("select ohlcv.add_candle_partitions(%s, %s)", [DAY, DAY])
    return connection
