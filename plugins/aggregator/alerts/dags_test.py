"""A listener that lets ``airflow dags test`` run DAGs with a deadline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.listeners import hookimpl

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun


@hookimpl
def on_dag_run_success(dag_run: DagRun) -> None:
    """Remove the deadline from the in-memory DAG of ``airflow dags test``, because Airflow would fail on it.

    A DAG from the database refers to its deadlines by id. ``DAG.test`` of Airflow 3.3.2 uses a copy that contains the
    definitions, and queries the database with a definition as the id. The stored DAG keeps its deadline.
    """
    dag = getattr(dag_run, "dag", None)
    if dag and dag.deadline and not all(isinstance(alert, str) for alert in dag.deadline):
        dag.deadline = None
