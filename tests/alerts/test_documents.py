"""The table of deadlines says what the code says, and lists every DAG."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

from aggregator.defaults import DEADLINES

if TYPE_CHECKING:
    from pathlib import Path

    from airflow.dag_processing.dagbag import DagBag


def test_table_of_deadlines_is_that_of_the_code(repository: Path) -> None:
    text = (repository / "docs" / "alerts.md").read_text()
    table = text.split("<!-- deadlines:")[1].split("<!-- /deadlines -->")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\d+) minutes \|$", table, re.MULTILINE)
    assert {dag_id: timedelta(minutes=int(minutes)) for dag_id, minutes in rows} == DEADLINES
    assert len(rows) == len(DEADLINES)


def test_every_dag_has_a_deadline(dag_bag: DagBag) -> None:
    assert dag_bag.dags
    assert set(dag_bag.dags) <= set(DEADLINES)
