"""The project's settings, from environment variables, checked when they are read (spec: configuration).

Secrets of other systems are not among them: those live in Airflow connections or its secrets backend.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Literal

from pydantic import PositiveInt, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from aggregator.errors import HardError


class Settings(BaseSettings):
    """Every setting; the variable is the field's name in capitals.

    Attributes:
        aggregator_start_date: First UTC day (``YYYY-MM-DD``) whose data the scheduler processes by itself. Not set:
            each DAG begins with the latest interval that is over. No interval after the first is ever left out, however
            long the scheduler was down.
        enable_analytics_cron: ``false`` pauses the scheduled runs of the six analytics DAGs: they are skipped, which
            the UI shows, and touch no data. Runs that somebody starts, by hand or by a backfill, do their work. Clear
            the skipped runs after the pause to catch up.
        warmup_counter_store: Where the counters of domains that warm up are: ``postgres``
            (``delivery.warmup_counters``) or ``r2`` (objects ``warmup/daily/{organization}/{domain}``, connection
            ``warmup_r2``).
        cron_secret: What callers of ``/api/jobs`` send as their bearer; the API server needs it. Not set: nobody is let
            in (503).
        n8n_api_key: The key of n8n's webhooks, where the connection ``n8n`` has no password. It goes to the
            connection's ``allowed_origins`` only.
        environment: What n8n and the job records are told about where this runs, e.g. ``production``.
        scheduler_api_key: What n8n sends as its bearer when it reports about a KPI; the API server needs it. Not set:
            nobody is let in (503).
        job_timeout_minutes: How long a KPI's report is waited for, from its request on.
        kpi_jobs_keep_days: How long job records are kept. Runs older than that send nothing unless they say
            ``resend=true``.
    """

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True)

    aggregator_start_date: date | None = None
    enable_analytics_cron: bool = True
    warmup_counter_store: Literal["postgres", "r2"] = "postgres"
    cron_secret: SecretStr | None = None
    n8n_api_key: SecretStr | None = None
    environment: str = "development"
    scheduler_api_key: SecretStr | None = None
    job_timeout_minutes: PositiveInt = 30
    kpi_jobs_keep_days: PositiveInt = 90

    @property
    def start_date(self) -> datetime | None:
        """``aggregator_start_date`` as the moment it begins, in UTC."""
        day = self.aggregator_start_date
        return None if day is None else datetime.combine(day, time.min, UTC)


def load() -> Settings:
    """Read the settings.

    Raises:
        HardError: One or more are invalid; the text names each and what is wrong with it, without its value.
    """
    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors(include_input=False)
        )
        msg = f"Invalid settings: {wrong}. Correct the environment variables named."
        raise HardError(msg) from None
