"""DAG bundles of tests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from airflow.dag_processing.bundles import manager

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def use_bundle(monkeypatch: pytest.MonkeyPatch, name: str, folder: Path) -> None:
    """Make a folder Airflow's only DAG bundle.

    Args:
        monkeypatch: Of the test.
        name: Of the bundle.
        folder: Of its DAG files.
    """
    classpath = "airflow.dag_processing.bundles.local.LocalDagBundle"
    bundle = {"name": name, "classpath": classpath, "kwargs": {"path": str(folder)}}
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps([bundle]))
    # Airflow 3.4 reads the setting once per process.
    if snapshot := getattr(manager, "_load_bundle_config_snapshot", None):
        snapshot.cache_clear()
