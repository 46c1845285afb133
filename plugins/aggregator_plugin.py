"""What this repository adds to Airflow itself; registers, and nothing else."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from aggregator.api import health, kpi, telemetry
from aggregator.timetables.offset_cron import OffsetCronTimetable


class AggregatorPlugin(AirflowPlugin):
    """The extensions that the DAGs need in every Airflow process."""

    name = "aggregator"
    fastapi_apps = [  # noqa: RUF012
        {"app": telemetry.app, "url_prefix": telemetry.PREFIX, "name": "jobs"},
        {"app": kpi.app, "url_prefix": kpi.PREFIX, "name": "kpi"},
        {"app": health.app, "url_prefix": health.PREFIX, "name": "health"},
    ]
    fastapi_root_middlewares = [{"middleware": health.AnswerWithoutSlash, "name": "health"}]  # noqa: RUF012
    timetables = [OffsetCronTimetable]  # noqa: RUF012 (an instance variable in Airflow's base class)
