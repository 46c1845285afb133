"""Fixtures of the tests of OHLCV."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.market_data import DAY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def market(migrated: Callable[..., psycopg.Connection]) -> psycopg.Connection:
    """An autocommit connection to a migrated, empty database with one month of partitions."""
    connection = migrated("market")
    connection.execute("select ohlcv.add_candle_partitions(%s, %s)", [DAY, DAY])
    return connection


@pytest.fixture
def new_york(market: psycopg.Connection) -> None:
    """Give the database a time zone with daylight saving time, and one more month of partitions."""
    market.execute(f"alter database {market.info.dbname} set timezone to 'America/New_York'")
    market.execute("set timezone to 'America/New_York'")
    market.execute("select ohlcv.add_candle_partitions(%s, %s)", [DAY, DAY + timedelta(days=30)])


@pytest.fixture
def other(database_url: str, market: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """A second autocommit connection."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection
