"""The project's settings, from environment variables, checked when they are read (spec: configuration).

Secrets of other systems are not among them: those live in Airflow connections or its secrets backend.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PositiveInt, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from aggregator.errors import HardError

_UPPER = BeforeValidator(str.upper)


class Settings(BaseSettings):
    """Every setting; the variable is the field's name in capitals.

    Attributes:
        aggregator_start_date: First UTC day whose data the scheduler processes by itself. Unset: each DAG begins with
            the latest interval that is over when its first run is created. Either way no interval after it is left out.
        enable_analytics_cron: False pauses the scheduled runs of the analytics suite; runs that somebody starts, and
            backfills, do their work (spec: analytics suite).
        warmup_counter_store: Where the product counts the mails of domains that warm up: its PostgreSQL, or an R2
            bucket.
        cron_secret: What callers of ``/api/jobs`` and ``/api/freshness`` send as their bearer. Unset: nobody is let in.
        aggregator_deadlines: DAG → the longest that a scheduled run may take from when it is due, where it shall not be
            that of ``defaults.DEADLINES``.
        n8n_api_key: What n8n's webhooks are sent as their bearer, where the connection ``n8n`` has no password.
        environment: What n8n and the job records are told about where this runs.
        scheduler_api_key: What n8n sends as its bearer when it reports about a KPI. Unset: nobody is let in.
        job_timeout_minutes: How long a KPI's report is waited for, from its request on.
        kpi_jobs_keep_days: Days that job records are kept.
        env_name: Which environment this is. In DEV and TEST, OHLCV takes assets that are ``test_active``, too.
        job_name: Under which name OHLCV keeps its run log and issues.
        max_tasks_per_run: OHLCV tasks (symbol and timeframe) that a run claims at most.
        max_windows_per_task: New windows, and stale ones, that a run builds for a task at most.
        running_stale_seconds: Age in seconds from which on an OHLCV task's lock is taken over.
        auto_disable_hard_fails: Hard failures in a row that disable an OHLCV task.
        agg_derivation_version: Stored with each bar; raise it when bars are derived differently, then rebuild.
        log_level: Of what OHLCV logs.
        ohlcv_symbols_per_shard: Symbols of which one task instance takes care.
        candle_retention_days: Candles of months that ended longer ago are dropped, their bars stay. Unset: none are.
        ops_runlog_keep: Rows of the run log that stay.
    """

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True)

    aggregator_start_date: date | None = None
    enable_analytics_cron: bool = True
    warmup_counter_store: Literal["postgres", "r2"] = "postgres"
    cron_secret: SecretStr | None = None
    aggregator_deadlines: dict[str, Annotated[timedelta, Field(gt=timedelta())]] = Field(default_factory=dict)
    n8n_api_key: SecretStr | None = None
    environment: str = "development"
    scheduler_api_key: SecretStr | None = None
    job_timeout_minutes: PositiveInt = 30
    kpi_jobs_keep_days: PositiveInt = 90
    env_name: Annotated[Literal["DEV", "TEST", "STAGE", "PROD"], _UPPER] = "DEV"
    job_name: str = "agg-master"
    max_tasks_per_run: PositiveInt = 20
    max_windows_per_task: PositiveInt = 100
    running_stale_seconds: PositiveInt = 900
    auto_disable_hard_fails: PositiveInt = 3
    agg_derivation_version: PositiveInt = 1
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], _UPPER] = "INFO"
    ohlcv_symbols_per_shard: PositiveInt = 2500
    candle_retention_days: PositiveInt | None = None
    ops_runlog_keep: PositiveInt = 2000

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
    except SettingsError as error:
        # Names the field whose JSON cannot be read, without its value.
        msg = f"Invalid settings: {error}. Correct the environment variable of that name."
        raise HardError(msg) from None
