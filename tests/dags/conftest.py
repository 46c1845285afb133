"""The DAGs, loaded as Airflow loads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from airflow.dag_processing.dagbag import DagBag

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def dag_bag(repository: Path) -> DagBag:
    return DagBag(str(repository / "dags"), collect_dags=True)
