"""Makes ``airflow dags test`` work for a DAG that has a deadline (spec: alerts and health)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.listeners import hookimpl

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun


@hookimpl
def on_dag_run_success(dag_run: DagRun) -> None:
    """Remove the deadline from the in-memory DAG of ``airflow dags test``, right before Airflow would fail on it.

    A serialized DAG from the database refers to its deadlines by id. ``DAG.test`` of 3.3.2 uses a copy that holds their
    definitions instead, and then queries the database with such a definition as the id. The stored DAG is not changed:
    a run that somebody starts has no deadline anyway.

    Args:
        dag_run: The run that has succeeded.
    """
    dag = getattr(dag_run, "dag", None)
    if dag and dag.deadline and not all(isinstance(alert, str) for alert in dag.deadline):
        dag.deadline = None
