"""What this repository adds to Airflow itself; registers, and nothing else."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from aggregator.alerts import dags_test
from aggregator.alerts.deadline import DagRunDue
from aggregator.core.timetable import OffsetCronTimetable
from aggregator.kpi import api as kpi
from aggregator.telemetry import api as telemetry
from aggregator.web import freshness, health
from aggregator.web.mount import AnswerWithoutSlash


class AggregatorPlugin(AirflowPlugin):
    """The extensions that the DAGs need in every Airflow process."""

    name = "aggregator"
    deadline_references = [DagRunDue]  # noqa: RUF012
    fastapi_apps = [  # noqa: RUF012
        {"app": telemetry.app, "url_prefix": telemetry.PREFIX, "name": "jobs"},
        {"app": kpi.app, "url_prefix": kpi.PREFIX, "name": "kpi"},
        {"app": health.app, "url_prefix": health.PREFIX, "name": "health"},
        {"app": freshness.app, "url_prefix": freshness.PREFIX, "name": "freshness"},
    ]
    fastapi_root_middlewares = [  # noqa: RUF012
        {"middleware": AnswerWithoutSlash, "kwargs": {"prefix": prefix}, "name": prefix}
        for prefix in (health.PREFIX, freshness.PREFIX)
    ]
    listeners = [dags_test]  # noqa: RUF012
    timetables = [OffsetCronTimetable]  # noqa: RUF012 (an instance variable in Airflow's base class)
