"""Airflow's plugin loader with ``plugins/``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from airflow import plugins_manager

from aggregator.alerts.deadline import DagRunDue
from aggregator.core.timetable import OffsetCronTimetable

PLUGINS = Path(__file__).parents[1] / "plugins"


def registered_by_bare_name(package: Path) -> list[str]:
    """Modules of ``package`` that are registered in ``sys.modules`` as top-level modules."""
    return [
        path.stem
        for path in package.rglob("*.py")
        if (module := sys.modules.get(path.stem)) and getattr(module, "__file__", None) == str(path)
    ]


def test_only_the_entry_file_is_a_plugin() -> None:
    plugins_manager.ensure_plugins_loaded()

    assert plugins_manager.get_import_errors() == {}
    sources = [str(plugin["source"]) for plugin in plugins_manager.get_plugin_info()]
    assert [source for source in sources if source.startswith("$")] == ["$PLUGINS_FOLDER/aggregator_plugin.py"]
    assert registered_by_bare_name(PLUGINS / "aggregator") == []


def test_timetable_is_registered() -> None:
    assert plugins_manager.get_timetables_plugins() == {
        "aggregator.core.timetable.OffsetCronTimetable": OffsetCronTimetable
    }


def test_deadline_reference_is_registered() -> None:
    registered: dict[str, type] = plugins_manager.get_deadline_references_plugins()
    assert registered == {"aggregator.alerts.deadline.DagRunDue": DagRunDue}


def test_processes_without_http_api_do_not_import_fastapi(repository: Path) -> None:
    """The scheduler, triggerer, DAG processor, workers and CLI load the plugin, too."""
    script = """
import subprocess
import sys
from airflow import plugins_manager as manager
before = set(sys.modules)
manager.get_timetables_plugins()
manager.get_deadline_references_plugins()
manager.integrate_listener_plugins(type("Listeners", (), {"add_listener": print}))
assert not manager.get_import_errors()
assert "aggregator_plugin" in sys.modules
unwanted = ("fastapi", "starlette", "aggregator.web", "aggregator.kpi", "aggregator.telemetry")
print("imported:", *(name for name in set(sys.modules) - before if name.startswith(unwanted)))
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=repository)
    assert done.stdout.splitlines()[-1] == "imported:"
