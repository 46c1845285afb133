"""Imports what the tasks of all DAGs need. A process that forks task processes imports this module once.

The task processes inherit the modules. A task process that imports them itself takes 0.3 to 0.6 CPU seconds longer. The
imports start no thread and connect to nothing.
"""

from __future__ import annotations

import logging
from importlib import import_module
from pkgutil import walk_packages

import aggregator

log = logging.getLogger(__name__)

_NOT_IN_TASKS = {"__main__", "api", "cli", "http", "web"}
"""Names of modules that only the API server or a command line needs."""

_AIRFLOW = (
    "airflow.dag_processing.bundles.local",
    "airflow.dag_processing.dagbag",
    "airflow.dag_processing.importers.python_importer",
    "airflow.providers.standard.operators.empty",
    "airflow.sdk.bases.sensor",
    "airflow.sdk.bases.skipmixin",
    "airflow.sdk.definitions.asset.metadata",
    "airflow.sdk.execution_time.cache",
    "airflow.sdk.execution_time.task_runner",
    "airflow.sdk.execution_time.timeout",
    "airflow.sdk.observability.stats",
    "airflow.version",
    "anyio._backends._asyncio",
    "jinja2.ext",
    "packaging.requirements",
    "pendulum.locales.en.locale",
)
"""Modules that Airflow, or a library, imports only while a task runs."""


def _ours() -> list[str]:
    found = (module.name for module in walk_packages(aggregator.__path__, "aggregator."))
    return [name for name in found if not _NOT_IN_TASKS & {*name.split(".")}]


for name in (*_AIRFLOW, *_ours()):
    try:
        import_module(name)
    except Exception:
        # Without the plugin, no DAG would run. So only the tasks that need the module fail.
        log.exception("%s cannot be imported. Tasks that need it will fail.", name)

# Tasks load the plugins of the Task SDK, which the process that forks them does not load.
import_module("airflow.sdk.listener").get_listener_manager()
