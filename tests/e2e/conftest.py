"""A whole Airflow on the sample data, booted once: scheduler, DAG processor, triggerer, API server, all real."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from dev.stack import Ports, Stack

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    # Not below pytest's own folder: pytest closes that to the user whom PostgreSQL runs as, whenever it starts.
    stack = Stack(Path(tempfile.mkdtemp(prefix="aggregator-e2e-")))
    try:
        stack.start(Ports.free(), durable=False, say=print)
        yield stack
    finally:
        stack.remove()


@pytest.fixture
def products(stack: Stack) -> Iterator[psycopg.Connection]:
    """An autocommit connection to the products' database."""
    with psycopg.connect(stack.products_url, autocommit=True) as connection:
        yield connection
