"""What Airflow's plugin loader makes of ``plugins/``."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

from airflow import plugins_manager

from aggregator.alerts.deadline import DagRunDue
from aggregator.core.timetable import OffsetCronTimetable
from aggregator_plugin import AggregatorPlugin

PLUGINS = Path(__file__).parents[1] / "plugins"


def registered_by_bare_name(package: Path) -> list[str]:
    """Modules of ``package`` that stand in ``sys.modules`` as if they were top-level ones."""
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


def test_the_timetable_is_registered() -> None:
    assert plugins_manager.get_timetables_plugins() == {
        "aggregator.core.timetable.OffsetCronTimetable": OffsetCronTimetable
    }


def test_the_deadline_reference_is_registered() -> None:
    assert plugins_manager.get_deadline_references_plugins() == {"aggregator.alerts.deadline.DagRunDue": DagRunDue}


def test_every_path_that_answers_get_answers_head() -> None:
    for mounted in AggregatorPlugin.fastapi_apps:
        methods: dict[str, set[str]] = defaultdict(set)
        for route in mounted["app"].routes:
            methods[route.path] |= route.methods
        assert methods
        for path, allowed in methods.items():
            assert "GET" not in allowed or "HEAD" in allowed, f"{mounted['url_prefix']}{path}"
