"""What texts for people share: lists of names, links to a run."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable


def listed(names: Iterable[str], at_most: int, *, of: int | None = None, separator: str = ", ") -> str:
    """Names as a reader can take them in: the first ones, and how many more there are.

    Args:
        names: In the order in which they are shown.
        at_most: How many are shown.
        of: How many there are, where ``names`` are only the first of them.
        separator: Between two names.
    """
    every = list(names)
    more = max(of or 0, len(every)) - min(len(every), at_most)
    return separator.join([*every[:at_most], *([f"and {more:,} more"] if more else [])])


def run_link(dag_id: str, run_id: str | None = None) -> str:
    """The page of a run, or of a DAG, in Airflow's UI."""
    from airflow.sdk.configuration import conf  # noqa: PLC0415 - seconds, and few processes need it

    page = f"{conf.get('api', 'base_url', fallback='').rstrip('/')}/dags/{dag_id}"
    return page if run_id is None else f"{page}/runs/{quote(run_id, safe='')}"
