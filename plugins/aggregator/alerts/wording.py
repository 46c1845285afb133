"""What the texts about runs have in common."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from datetime import datetime


def run_link(dag_id: str, run_id: str | None = None) -> str:
    """The page of a run, or of a DAG, in Airflow's UI."""
    from airflow.sdk.configuration import conf

    page = f"{conf.get('api', 'base_url', fallback='').rstrip('/')}/dags/{dag_id}"
    return page if run_id is None else f"{page}/runs/{quote(run_id, safe='')}"


def minute(moment: datetime) -> str:
    """A moment as people read it, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
