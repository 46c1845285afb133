"""Airflow parses DAG files continuously, so they must not import libraries that only tasks need."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

NEEDED_BY_TASKS = {"boto3", "ijson", "psycopg", "psycopg2", "requests", "sqlglot"}

PROGRAM = """
import sys, runpy, pathlib
from airflow.sdk import DAG, BaseOperator, Param
import airflow.providers.standard.operators.empty  # by Airflow, for every task that is mapped
from aggregator.core import timetable as offset_cron  # the plugin's: every process of Airflow has it
before = set(sys.modules)
for path in pathlib.Path(sys.argv[1]).glob("*.py"):
    runpy.run_path(str(path))
print(*(set(sys.modules) - before))
"""


@pytest.mark.slow
def test_dag_files_import_no_library_that_only_tasks_need(repository: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(repository / "dags")]
    imported = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert "aggregator.postgres.operators" in imported
    assert imported & NEEDED_BY_TASKS == set()
    providers = {".".join(module.split(".")[:3]) for module in imported if module.startswith("airflow.providers.")}
    assert providers <= {"airflow.providers.standard"}, "which Airflow imports itself where a task is mapped"
