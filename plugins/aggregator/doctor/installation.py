"""Checks of this installation: settings, Airflow's configuration and database, disks."""

from __future__ import annotations

import multiprocessing
import shutil
import sys
import tempfile
from typing import TYPE_CHECKING

from airflow.configuration import conf
from airflow.models.dag import DagModel
from airflow.models.errors import ParseImportError
from airflow.utils.session import create_session
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from aggregator.core import settings
from aggregator.core.catalog import CATALOG
from aggregator.core.errors import PermanentError
from aggregator.doctor.rows import Row, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

GB = 1_000_000_000
SMALLEST, SMALL = GB // 2, 5 * GB
"""Free bytes of a disk below which it is a failure, or a warning."""

SETTINGS_PAGE = "docs/configure/settings.md"


def check_settings() -> Iterator[Row]:
    """Load each class of settings."""
    problems = []
    for group in settings.ALL:
        try:
            group.load()
        except PermanentError as error:
            problems.append(Row("settings", group.__name__, Status.FAILURE, str(error)))
    yield from problems or [Row("settings", "values", Status.OK, f"{len(settings.ALL)} groups are valid")]


def check_configuration() -> Iterator[Row]:
    """Compare Airflow's configuration with what the DAGs need."""
    executor = conf.get("core", "executor")
    celery, local = "Celery" in executor, "Local" in executor
    interval = conf.getint("workers", "min_heartbeat_interval")
    lazy = conf.getboolean("core", "lazy_load_plugins")
    zone = conf.get("core", "default_timezone")
    parallelism = conf.getint("core", "parallelism")
    method = conf.get("core", "mp_start_method", fallback=None) or multiprocessing.get_start_method()
    forks = method == "fork" or not local or sys.platform != "linux"
    for option, value, right, advice in (
        ("workers.min_heartbeat_interval", interval, interval <= 1, "Set it to 1: a slot may stay taken for longer."),
        ("core.lazy_load_plugins", lazy, not (lazy and celery), "Set it to False for Celery workers, and check there."),
        ("core.default_timezone", zone, zone.lower() == "utc", "Set it to utc."),
        ("core.parallelism", parallelism, parallelism > 1, "Raise it: a run that waits would stop all others."),
        ("core.mp_start_method", method, forks, "Set it to fork: task processes then inherit what is imported."),
    ):
        ok = Row("airflow", option, Status.OK, str(value))
        yield ok if right else Row("airflow", option, Status.WARNING, str(value), f"{advice} See {SETTINGS_PAGE}.")


def check_dags(paused: set[str]) -> Iterator[Row]:
    """Check Airflow's database, and whether it has every DAG of the catalog without an import error.

    Args:
        paused: Receives the IDs of the paused DAGs.
    """
    try:
        with create_session() as session:
            dags = session.execute(select(DagModel.dag_id, DagModel.is_paused).where(~DagModel.is_stale)).all()
            broken = session.scalars(select(ParseImportError.filename)).all()
    except SQLAlchemyError as error:
        # Without the text, which may contain the address with its password.
        advice = "Check AIRFLOW__DATABASE__SQL_ALCHEMY_CONN, and run: airflow db migrate"
        yield Row("airflow", "database", Status.FAILURE, f"cannot be read ({type(error).__name__})", advice)
        return
    paused.update(dag_id for dag_id, is_paused in dags if is_paused and dag_id in CATALOG)
    missing = sorted(CATALOG.keys() - {dag_id for dag_id, _ in dags})
    found = f"{len(CATALOG) - len(missing)} of {len(CATALOG)} DAGs loaded, {len(paused)} paused"
    if missing or broken:
        problems = [f"not loaded: {', '.join(missing)}"] * bool(missing)
        problems += [f"import errors in {', '.join(map(str, broken))}"] * bool(broken)
        advice = "Check that the DAG processor is running, and `airflow dags list-import-errors`."
        yield Row("airflow", "DAGs", Status.FAILURE, "; ".join([found, *problems]), advice)
    else:
        yield Row("airflow", "DAGs", Status.OK, found)


def check_disks() -> Iterator[Row]:
    """Check the free space for task logs and temporary files."""
    for what, folder in (("task logs", conf.get("logging", "base_log_folder")), ("temporary", tempfile.gettempdir())):
        try:
            free = shutil.disk_usage(folder).free
        except OSError as error:
            yield Row("disk", what, Status.FAILURE, f"{folder}: {error.strerror}", "Create it, and make it writable.")
            continue
        status = Status.FAILURE if free < SMALLEST else Status.WARNING if free < SMALL else Status.OK
        advice = "" if status is Status.OK else "Free some space, or lower AGGREGATOR_KEEP_DAYS."
        yield Row("disk", what, status, f"{folder}: {free / GB:.1f} GB free", advice)
