"""``python -m aggregator.doctor``: print the report of all checks."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections import Counter
from dataclasses import asdict, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from aggregator.alerts.notifier import WEBHOOK
from aggregator.core.catalog import CATALOG, Tag
from aggregator.doctor import databases, installation, services
from aggregator.doctor.rows import Row, Status, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aggregator.doctor.rows import Check

TIME_LIMIT = timedelta(seconds=30)
"""Time limit of all checks together."""

_STYLES = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILURE: "red"}


def report(*, send_test_alert: bool = False, limit: timedelta = TIME_LIMIT) -> list[Row]:
    """Run all checks.

    Args:
        send_test_alert: Whether to send a message to the receiver of alerts.
        limit: Time limit of all checks together.

    Returns:
        The rows. A failure of what only paused DAGs need is a warning.
    """
    paused: set[str] = set()
    checks: dict[str, Check] = {
        "settings": installation.check_settings,
        "configuration": installation.check_configuration,
        "airflow": partial(installation.check_dags, paused),
        "disk": installation.check_disks,
        **{conn_id: partial(databases.check, conn_id, needed) for conn_id, needed in databases.needed_rights().items()},
        "analytics_engine": services.analytics_engine,
        "n8n": services.n8n,
        "warmup_r2": services.r2,
        WEBHOOK: partial(services.alerts, send_test=send_test_alert),
    }
    return [_weigh(row, paused) for row in run(checks, limit)]


def needed_by(subject: str) -> set[str]:
    """The DAGs that need a connection; empty for what the whole installation needs."""
    tags = {"analytics_engine": Tag.ANALYTICS_ENGINE, "n8n": Tag.N8N}
    if subject == "warmup_r2":
        return {"analytics_warmup_reset"}
    return {dag_id for dag_id, facts in CATALOG.items() if subject == facts.conn_id or tags.get(subject) in facts.tags}


def _weigh(row: Row, paused: set[str]) -> Row:
    dags = needed_by(row.subject)
    if row.status is not Status.FAILURE or not dags or dags - paused:
        return row
    return replace(row, status=Status.WARNING, advice=f"{row.advice} Only paused DAGs need it.".strip())


def print_table(rows: Sequence[Row], console: Console) -> None:
    """Print the rows as one table, then the number of each status."""
    table = Table("", "what", "check", "found, and what to do")
    for row in rows:
        found = escape(row.found) + (f"\n[bold]→ {escape(row.advice)}[/]" if row.advice else "")
        table.add_row(f"[{_STYLES[row.status]}]{row.status}[/]", row.subject, escape(row.check), found)
    console.print(table)
    counts = Counter(row.status for row in rows)
    console.print(", ".join(f"{status}: {counts[status]}" for status in Status))


def main(arguments: Sequence[str] | None = None) -> int:
    """Check this installation.

    Returns:
        The exit code: 1 if there is a failure. Warnings do not count.
    """
    parser = argparse.ArgumentParser(prog="python -m aggregator.doctor", description="Check this installation.")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--send-test-alert", action="store_true", help="send a message to the receiver of alerts")
    options = parser.parse_args(arguments)
    # Airflow finds connections from its database only if this is set.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    rows = report(send_test_alert=options.send_test_alert)
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        # Without a terminal, rich would wrap lines at 80 characters.
        print_table(rows, Console() if sys.stdout.isatty() else Console(width=140))
    return 1 if any(row.status is Status.FAILURE for row in rows) else 0


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    code = main()
    sys.stdout.flush()
    # A lookup that hangs in a thread would keep the process.
    os._exit(code)
