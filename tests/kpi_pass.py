"""The task ``send_kpis`` in a process of its own, for tests that kill it and for the bench."""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aggregator.kpi import dispatch, operators, registry  # noqa: F401 - imported before the fork
from tests.kpi_data import Run, entry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from dev.n8n.client import N8nControl

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__])


def environment(
    database_url: str, n8n: N8nControl, ids: Sequence[str], key: str = "", urls: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Environment variables of a deployment whose registry has these KPIs.

    Args:
        database_url: The database of ``kpi_db``.
        n8n: The stand-in.
        ids: KPI ids, which are the paths of their webhooks.
        key: Key of the webhooks.
        urls: Webhooks of KPIs that are elsewhere.
    """
    urls = urls or {}
    origins = [n8n.url, *{url.removesuffix(f"/{url.split('/', 3)[3]}") for url in urls.values()}]
    connection = {"conn_type": "http", "password": key, "extra": {"allowed_origins": origins}}
    entries = [entry(id_, webhookUrl=urls.get(id_) or n8n.webhook(id_)) for id_ in ids]
    return {
        "AIRFLOW_CONN_KPI_DB": database_url,
        "AIRFLOW_CONN_N8N": json.dumps(connection),
        "AIRFLOW_VAR_KPI-REGISTRY": json.dumps({"kpis": entries}),
    }


def new_run(ids: Sequence[str], run_time: datetime, **more: Any) -> Run:
    """Return a run that has selected these KPIs."""
    dag = runpy.run_path(str(Path(__file__).parents[1] / "dags/kpi_dispatch.py"))["registry"].dag
    run = Run(dag, run_time, **more)
    run.xcoms["read_registry", "return_value"] = [list(ids)]
    return run


def send(variables: dict[str, str], ids: Sequence[str], run_time: datetime, run_id: str, begun: Any) -> None:
    """Execute ``send_kpis``; the target of a process.

    Args:
        variables: Result of `environment`.
        ids: KPI ids.
        run_time: Logical date of the run.
        run_id: Id of the run.
        begun: Event that is set when the task begins.
    """
    os.environ.update(variables)
    run = new_run(ids, run_time, name=run_id.partition("__")[0])
    begun.set()
    run.execute("send_kpis")
