"""Who may see what: Airflow's own users and permissions."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag, requires_access_view
from fastapi import Depends

from aggregator.core.catalog import CATALOG
from aggregator.web.operations.database import ReadError

PAGE = Depends(requires_access_view(AccessView.PLUGINS))
"""Requires a user who may see the pages of plugins."""


def dag(dag_id: str) -> Any:
    """A dependency that requires READ access to the runs of a DAG.

    Args:
        dag_id: The DAG.
    """
    return Depends(requires_access_dag("GET", DagAccessEntity.RUN, param_dag_id=dag_id))


def known_dag(dag_id: str) -> str:
    """The path parameter ``dag_id``, if it is a DAG of this repository.

    Raises:
        ReadError: It is not.
    """
    if dag_id not in CATALOG:
        detail = f"This repository has no DAG {dag_id!r}. /overview has those that you may see."
        raise ReadError(HTTPStatus.NOT_FOUND, "not_found", detail)
    return dag_id


DAG_OF_PATH = Depends(requires_access_dag("GET", DagAccessEntity.RUN))
"""Requires READ access to the runs of the DAG in the path."""


def _readable_dags(user: GetUserDep) -> frozenset[str]:
    return frozenset(get_auth_manager().get_authorized_dag_ids(user=user, method="GET")) & CATALOG.keys()


ReadableDags = Annotated[frozenset[str], Depends(_readable_dags)]
"""The DAGs of this repository that the user may read."""


def any_of(*dag_ids: str) -> Any:
    """A dependency that requires READ access to at least one of some DAGs."""

    def require(readable: ReadableDags) -> None:
        if readable.isdisjoint(dag_ids):
            raise ReadError(HTTPStatus.FORBIDDEN, "forbidden", FORBIDDEN)

    return Depends(require)


FORBIDDEN = "You may not see this. Ask for READ access to the runs of the DAG, and to the pages of plugins."
