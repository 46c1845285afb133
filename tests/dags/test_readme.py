"""The README's table of DAGs says what is there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from airflow.dag_processing.dagbag import DagBag

TEN_DAGS = 10


def test_table_lists_ten_dags_and_which_of_them_run(dag_bag: DagBag, repository: Path) -> None:
    readme = (repository / "README.md").read_text()
    table = readme.split("<!-- dags:")[1].split("<!-- /dags -->")[0]
    states = dict(re.findall(r"^\| `(\w+)` \|.*\| (runs|planned) \|$", table, re.MULTILINE))
    assert len(states) == TEN_DAGS
    assert {name for name, state in states.items() if state == "runs"} == set(dag_bag.dags)
