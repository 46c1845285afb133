"""The plugin: registers this repository's extensions with Airflow."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

from aggregator.alerts import dags_test
from aggregator.alerts.deadline import DagRunDue
from aggregator.core.timetable import OffsetCronTimetable

if TYPE_CHECKING:
    from collections.abc import Sequence


def forks_tasks(command: Sequence[str]) -> bool:
    """Whether a process forks task processes, or processes that parse DAG files.

    Args:
        command: Its command line.
    """
    match command[1:]:
        case ["celery", "worker", *_] | ["dag-processor", *_]:
            return True
        case ["scheduler", *_]:
            return "LocalExecutor" in conf.get("core", "executor")
        case _:
            return False


class AggregatorPlugin(AirflowPlugin):
    """The extensions that the DAGs and the HTTP API need."""

    name = "aggregator"
    deadline_references = [DagRunDue]  # noqa: RUF012
    listeners = [dags_test]  # noqa: RUF012
    timetables = [OffsetCronTimetable]  # noqa: RUF012 (an instance variable in Airflow's base class)

    @classmethod
    def on_load(cls, *_: Any, **__: Any) -> None:
        """Import what tasks need before task processes are forked, so that they inherit it."""
        if forks_tasks(sys.argv):  # noqa: TID251 - what is imported early changes no DAG
            import aggregator.preload  # noqa: F401

    # Properties: every Airflow process loads the plugin, and only the API server needs FastAPI.
    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The apps of the HTTP API."""
        from aggregator.web.app import APPS

        return [{"app": app, "url_prefix": prefix, "name": prefix.rpartition("/")[2]} for prefix, app in APPS.items()]

    @property
    def fastapi_root_middlewares(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The middleware of the HTTP API."""
        from aggregator.web.app import AppendSlash

        return [{"middleware": AppendSlash, "name": "append slash"}]

    @property
    def react_apps(self) -> list[dict[str, str]]:  # type: ignore[override]
        """The Operations page in Airflow's UI."""
        from aggregator.web.operations.assets import react_apps

        return react_apps()
