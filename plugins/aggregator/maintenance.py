"""Deletes history that is older than ``AGGREGATOR_KEEP_DAYS``: in Airflow's database, of task logs, of alerts.

    python -m aggregator.maintenance [--daily] [--heartbeat FILE]

Airflow deletes nothing by itself, and its tasks cannot use its database. So this is a process beside Airflow's. The
products prune their own tables: OHLCV its run log, KPI dispatch its job records.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.configuration import conf

from aggregator.alerts.store import execute
from aggregator.core.errors import AggregatorError, TransientError
from aggregator.core.settings import MaintenanceSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger(__name__)

DAY = timedelta(days=1)
RETRY_DELAY = timedelta(minutes=10)
BATCH = 10_000
"""Rows that one transaction deletes from Airflow's database."""


def clean_airflow(before: datetime) -> None:
    """Delete rows of the time before from Airflow's database. The last scheduled run of each DAG stays.

    Raises:
        TransientError: At least one table was not cleaned.
    """
    command = [sys.executable, "-m", "airflow", "db", "clean", "--clean-before-timestamp", before.isoformat()]
    done = subprocess.run(  # noqa: S603 - its arguments are from here
        [*command, "--yes", "--skip-archive", "--batch-size", str(BATCH), "--error-on-cleanup-failure"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    log.debug("%s", done.stdout)
    if done.returncode != 0:
        raise TransientError(
            "`airflow db clean` failed. Tables that it reached are clean, the others are unchanged, and the next try "
            f"continues. Its output ends with:\n{done.stdout[-2000:]}"
        )
    log.info("airflow before=%s", before.date())


def clean_logs(before: datetime) -> None:
    """Delete logs of tasks and of the DAG processor that were written last before a time, and empty folders."""
    root, oldest = Path(conf.get("logging", "base_log_folder")), before.timestamp()
    files, old_folders = 0, []
    for folder, folders, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            # Another process may delete the same file.
            with suppress(FileNotFoundError):
                if path.lstat().st_mtime < oldest:
                    path.unlink()
                    files += 1
        # A folder that is empty and new gets its first file right now.
        old_folders += [path for path in (Path(folder, name) for name in folders) if path.lstat().st_mtime < oldest]
    for path in reversed(old_folders):
        with suppress(OSError):
            path.rmdir()
    log.info("logs before=%s files=%d", before.date(), files)


def clean_alerts(before: datetime) -> None:
    """Delete alerts with their messages, and dead letters, that were resolved before a time."""
    ((alerts, letters),) = execute("alerts/queries/clean.sql", {"before": before})
    log.info("alerts before=%s alerts=%d dead_letters=%d", before.date(), alerts, letters)


def clean() -> bool:
    """Delete old history, and return whether all steps succeeded. The error of a step is logged."""
    complete = True
    try:
        before = datetime.now(UTC) - timedelta(days=MaintenanceSettings.load().aggregator_keep_days)
    except AggregatorError:
        log.exception("Nothing was deleted.")
        return False
    for step in (clean_airflow, clean_logs, clean_alerts):
        try:
            step(before)
        except (AggregatorError, OSError):
            log.exception("%s was not finished.", step.__name__)
            complete = False
    return complete


def main(arguments: Sequence[str] | None = None) -> int:
    """Delete old history once, or once a day until the process ends.

    Returns:
        The exit code: 0, or 1 if something was not cleaned.
    """
    parser = argparse.ArgumentParser(prog="python -m aggregator.maintenance", description="Delete old history.")
    parser.add_argument("--daily", action="store_true", help="now, and once a day until the process ends")
    parser.add_argument("--heartbeat", type=Path, metavar="FILE", help="touched after each success, for a health check")
    options = parser.parse_args(arguments)
    # Airflow finds connections from its database only if this is set.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    while True:
        complete = clean()
        if complete and options.heartbeat:
            options.heartbeat.touch()
        if not options.daily:
            return 0 if complete else 1
        time.sleep((DAY if complete else RETRY_DELAY).total_seconds())


if __name__ == "__main__":
    sys.exit(main())
