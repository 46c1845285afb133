"""The commands of the runbook for backup and restore, on a real server; only `docker` is a stand-in."""

from __future__ import annotations

import os
import re
import subprocess
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from aggregator.postgres.migrations import databases, migrate
from dev import postgres as embedded

if TYPE_CHECKING:
    from pathlib import Path

    from dev.postgres import Postgres

DOCKER = """
set -euo pipefail
docker() {
    [[ "$*" == "compose exec --no-TTY postgres "* ]] || return 0
    shift 4
    "$@"
}
"""
"""Executes the commands of the container `postgres`, and nothing else."""


@pytest.mark.slow
def test_restore_brings_everything_back(own_postgres: Postgres, repository: Path, tmp_path: Path) -> None:
    if not (embedded.PROGRAMS / "pg_dump").exists():
        pytest.skip("These programs of PostgreSQL have no pg_dump.")
    (folder,) = parse_qs(urlsplit(own_postgres.url).query)["host"]
    environment = {**os.environ, "PATH": f"{embedded.PROGRAMS}:{os.environ['PATH']}", "PGHOST": folder}
    section = (repository / "docs" / "operate" / "runbook.md").read_text().split("## Backup and restore")[1]
    backup, restore, *_ = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)

    def run(commands: str) -> None:
        # The volumes and the files of the host are not part of this test.
        commands = re.sub(r"^for volume .*?^done$|^cp .*?$", "", commands, flags=re.MULTILINE | re.DOTALL)
        subprocess.run(
            ["bash", "-c", DOCKER + commands], env=environment, cwd=tmp_path, check=True, capture_output=True
        )

    def content(name: str) -> str:
        command = ["pg_dump", "--username=airflow", "--inserts", name]
        dump = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        # Each dump has a random key, and the definition of a view that was restored has fewer parentheses.
        return re.sub(r"^\\(un)?restrict .*$|[()]", "", dump, flags=re.MULTILINE)

    with psycopg.connect(own_postgres.url, autocommit=True) as connection:
        connection.execute("create role airflow superuser login")
    with psycopg.connect(own_postgres.ensure_database("airflow"), autocommit=True) as connection:
        connection.execute("create table dag_run as select id from generate_series(1, 9) as id")
    products = own_postgres.ensure_database("products")
    for database in databases():
        migrate(partial(psycopg.connect, products), database)
    with psycopg.connect(products, autocommit=True) as connection:
        connection.execute(
            "insert into ops.dead_letters (type, attempts, dag_id, run_id, failed_task_ids)"
            " values ('', 1, 'a', 'b', '{}')"
        )
    before = {name: content(name) for name in ("airflow", "products")}
    assert "dead_letters" in before["products"]
    run(backup)
    own_postgres.drop_database("airflow")
    with psycopg.connect(products, autocommit=True) as connection:
        connection.execute("delete from ops.dead_letters")
    run(restore)
    assert {name: content(name) for name in before} == before
