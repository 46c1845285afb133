"""A new DAG needs its file and its entry in the catalog, and no other change."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from airflow.dag_processing.dagbag import DagBag

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

NEW_FILE = '''"""
### What
Nothing.

### Window
The UTC day of the run's logical date.

### Re-run
Safe at any time: clear the run.

### Deadline
02:00.

### Owner
clicks
"""

from __future__ import annotations

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

from aggregator.wiring import dag_args

with DAG(**dag_args("new_dag"), doc_md=__doc__, max_active_runs=1):
    EmptyOperator(task_id="nothing")
'''

NEW_ENTRY = '''    "new_dag": DagFacts(
        description="Does nothing",
        owner=Owner.CLICKS,
        tags=(Tag.CLICKS,),
        schedule=_daily(_HOUR),
        deadline=_HOUR,
        writes=("public.nothing",),
        impact="public.nothing lacks rows.",
    ),
}
"""DAG id'''


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Path:
    """A copy of the repository with the file of a new DAG, without an entry in the catalog."""
    for name in ("dags", "dev", "docs", "include", "plugins", "tests"):
        shutil.copytree(repository / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "pyproject.toml", "docker-compose.yaml"):
        shutil.copy(repository / name, tmp_path)
    (tmp_path / "dags" / "new_dag.py").write_text(NEW_FILE)
    return tmp_path


def run_module(checkout: Path, *arguments: str) -> str:
    environment = {"PYTHONPATH": f"{checkout / 'plugins'}:{checkout}", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-m", *arguments]
    result = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_without_an_entry_the_import_error_says_what_to_add(checkout: Path) -> None:
    bag: Any = DagBag(checkout / "dags" / "new_dag.py")
    assert not bag.dags
    (error,) = bag.import_errors.values()
    assert (
        "Add 'new_dag' to CATALOG in plugins/aggregator/core/catalog.py, with its facts: description, owner, " in error
    )


def test_with_an_entry_all_contracts_hold(checkout: Path) -> None:
    catalog = checkout / "plugins" / "aggregator" / "core" / "catalog.py"
    catalog.write_text(catalog.read_text().replace('}\n"""DAG id', NEW_ENTRY))

    run_module(checkout, "dev.docs")
    contracts = [f"tests/{name}.py" for name in ("dags/test_contract", "dags/test_readme", "dev/test_docs")]
    output = run_module(checkout, "pytest", "-v", "-p", "no:cacheprovider", *contracts)

    assert "test_page_has_the_headings[new_dag] PASSED" in output
    assert "| [`new_dag`](dags/new_dag.py) | Does nothing |" in (checkout / "README.md").read_text()
