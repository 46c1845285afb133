"""What this repository adds to Airflow itself; registers, and nothing else."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from aggregator.api import telemetry
from aggregator.timetables.offset_cron import OffsetCronTimetable


class AggregatorPlugin(AirflowPlugin):
    """The extensions that the DAGs need in every Airflow process."""

    name = "aggregator"
    fastapi_apps = [{"app": telemetry.app, "url_prefix": telemetry.PREFIX, "name": "jobs"}]  # noqa: RUF012
    timetables = [OffsetCronTimetable]  # noqa: RUF012 (an instance variable in Airflow's base class)
