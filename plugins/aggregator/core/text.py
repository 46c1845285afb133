"""Parts of texts for people: lists of names, links to a run."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable


def listed(names: Iterable[str], at_most: int, *, of: int | None = None, separator: str = ", ") -> str:
    """The first names of a list, and the number of the others.

    Args:
        names: The names, in the order of the text.
        at_most: Maximum number of names in the text.
        of: Total number, if ``names`` contains only the first ones.
        separator: Text between two names.
    """
    every = list(names)
    more = max(of or 0, len(every)) - min(len(every), at_most)
    return separator.join([*every[:at_most], *([f"and {more:,} more"] if more else [])])


def run_link(dag_id: str, run_id: str | None = None) -> str:
    """The URL of a run's page in Airflow's UI, or of the DAG's page without a run."""
    from airflow.sdk.configuration import conf  # noqa: PLC0415 - takes seconds; few processes need it

    page = f"{conf.get('api', 'base_url', fallback='').rstrip('/')}/dags/{dag_id}"
    return page if run_id is None else f"{page}/runs/{quote(run_id, safe='')}"
