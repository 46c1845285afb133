"""The README's table of DAGs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from airflow.dag_processing.dagbag import DagBag


def test_table_links_the_file_of_every_dag(dag_bag: DagBag, repository: Path) -> None:
    table = (repository / "README.md").read_text().split("<!-- dags:")[1].split("<!-- /dags -->")[0]
    links = dict(re.findall(r"^\| \[`(\w+)`\]\((.+?)\) \|", table, re.MULTILINE))
    assert set(links) == set(dag_bag.dags)
    assert [path for path in links.values() if not (repository / path).is_file()] == []
