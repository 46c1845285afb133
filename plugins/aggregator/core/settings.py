"""The project's settings, from environment variables, one class for each product (spec: configuration).

A class is read when its product needs it, so an invalid value stops that product only. Secrets of other systems are not
settings: they are in Airflow connections or its secrets backend.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PositiveInt, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from aggregator.core.errors import PermanentError

_UPPER = BeforeValidator(str.upper)

# Upper limits keep a typing error out of date arithmetic and of PostgreSQL's integers.
_YEAR_IN_MINUTES = 366 * 24 * 60
_CENTURY_IN_DAYS = 36_600
_Count = Annotated[PositiveInt, Field(le=2**31 - 1)]
_Days = Annotated[PositiveInt, Field(le=_CENTURY_IN_DAYS)]


class Settings(BaseSettings):
    """Settings that are read together; the variable is the field's name in capitals.

    Blanks and line breaks around a value are removed: a secret that is read from a file often ends with one. A value
    that has nothing else counts as not set.
    """

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True)

    @model_validator(mode="before")
    @classmethod
    def _strip(cls, values: dict[str, Any]) -> dict[str, Any]:
        stripped = {name: value.strip() if isinstance(value, str) else value for name, value in values.items()}
        return {name: value for name, value in stripped.items() if value != ""}

    @classmethod
    def load(cls) -> Self:
        """Read the settings of this class.

        Raises:
            PermanentError: One or more are invalid; the text names each and what is wrong with it, without its value.
        """
        try:
            return cls()
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join([str(e['loc'][0]).upper(), *map(str, e['loc'][1:])])}: {e['msg']}"
                for e in error.errors(include_input=False)
            )
            msg = f"Invalid settings: {wrong}. Correct the environment variables named."
            raise PermanentError(msg) from None
        except SettingsError:
            names = ", ".join(name.upper() for name, field in cls.model_fields.items() if field.default_factory)
            msg = f"Invalid settings: {names}: not JSON. Correct the environment variable named."
            raise PermanentError(msg) from None


class ScheduleSettings(Settings):
    """Which windows the scheduler processes.

    Attributes:
        aggregator_start_date: First UTC day (``YYYY-MM-DD``) whose data the scheduler processes by itself. Not set:
            each DAG begins with the latest interval that is over. No interval after the first is ever left out, however
            long the scheduler was down.
    """

    aggregator_start_date: Annotated[date, Field(ge=date(2000, 1, 1), le=date(2100, 1, 1))] | None = None

    @property
    def start_date(self) -> datetime | None:
        """``aggregator_start_date`` as the moment it begins, in UTC."""
        day = self.aggregator_start_date
        return None if day is None else datetime.combine(day, time.min, UTC)


class DeadlineSettings(Settings):
    """When a run is late.

    Attributes:
        aggregator_deadlines: The longest that a DAG's scheduled run may take from when it is due, if it differs
            from the default in ``docs/operate/alerts.md``; a JSON object of ISO 8601 durations:
            ``{"click_rollups": "PT45M"}``.
    """

    aggregator_deadlines: dict[str, Annotated[timedelta, Field(gt=timedelta(), le=timedelta(days=366))]] = Field(
        default_factory=dict
    )


class ApiSettings(Settings):
    """Secrets of those who call the API server.

    Attributes:
        cron_secret: What callers of ``/api/jobs`` and ``/api/freshness`` send as their bearer; the API server needs it.
            Not set: nobody is let in (503).
        scheduler_api_key: What n8n sends as its bearer when it reports about a KPI; the API server needs it. Not set:
            nobody is let in (503).
    """

    cron_secret: SecretStr | None = None
    scheduler_api_key: SecretStr | None = None


class AnalyticsSettings(Settings):
    """Settings of the analytics suite.

    Attributes:
        enable_analytics_cron: ``false`` pauses the scheduled runs of the six analytics DAGs: they are skipped, which
            the UI shows, and touch no data. Runs that somebody starts, by hand or by a backfill, do their work. Clear
            the skipped runs after the pause to catch up.
        warmup_counter_store: Where the counters of domains that warm up are: ``postgres``
            (``delivery.warmup_counters``) or ``r2`` (objects ``warmup/daily/{organization}/{domain}``, connection
            ``warmup_r2``).
    """

    enable_analytics_cron: bool = True
    warmup_counter_store: Literal["postgres", "r2"] = "postgres"


class KpiSettings(Settings):
    """Settings of KPI dispatch.

    Attributes:
        n8n_api_key: The key of n8n's webhooks, where the connection ``n8n`` has no password. It goes to the
            connection's ``allowed_origins`` only.
        n8n_read_timeout_seconds: How long n8n may take to respond, 480 at most. Raise it if n8n queues webhooks, as n8n
            Cloud does, or if workflows respond when they have finished. A KPI without a response is ``unknown``.
        environment: What n8n and the job records are told about where this runs, e.g. ``production``.
        job_timeout_minutes: How long a KPI's report is waited for, from its request on.
        kpi_jobs_keep_days: How long job records are kept. Runs older than that send nothing unless they say
            ``resend=true``.
    """

    n8n_api_key: SecretStr | None = None
    n8n_read_timeout_seconds: Annotated[PositiveInt, Field(le=480)] = 30
    environment: str = "development"
    job_timeout_minutes: Annotated[PositiveInt, Field(le=_YEAR_IN_MINUTES)] = 30
    kpi_jobs_keep_days: _Days = 90


class OhlcvSettings(Settings):
    """Settings of OHLCV.

    Attributes:
        env_name: ``DEV``, ``TEST``, ``STAGE`` or ``PROD``. OHLCV takes the assets that are ``active``; in ``DEV`` and
            ``TEST`` also those that are ``test_active``.
        job_name: Under which name OHLCV keeps its run log and its issues.
        max_tasks_per_run: OHLCV tasks (a symbol and a timeframe) that a run claims at most. The default is that of the
            Workers, whose CPU time was limited: from five symbols on it makes some wait, from a hundred on they starve.
            The local stack and ``docker-compose.yaml`` set 100000.
        max_windows_per_task: New windows of an OHLCV task, and stale ones, that one transaction builds at most. A run
            begins more transactions while there is time before its deadline and the next run, so this bounds the
            length of a transaction, not the work of a run. The local stack and ``docker-compose.yaml`` set 5000.
        running_stale_seconds: Age from which on the lock of an OHLCV task is taken over, by the database's clock.
        auto_disable_hard_fails: Hard failures in a row after which an OHLCV task is ``disabled``, or ``hard_failed`` if
            it is mandatory.
        agg_derivation_version: Stored with each bar. Raise it when bars are derived differently, then rebuild.
        log_level: Of what OHLCV logs.
        ohlcv_symbols_per_shard: Symbols whose bars one transaction builds. A task instance has two open at once.
        candle_retention_days: Candles of months that ended longer ago are dropped, once they are aggregated; their bars
            stay.
        candle_max_age_hours: How old a symbol's newest candle may be before its feed counts as dead. The default
            outlasts a long weekend; for markets that never close, 1 is better.
        ohlcv_max_behind_percent: Share of the symbols, in percent, that may be behind before ``ohlcv.bars`` (candles
            wait to be built) or ``ohlcv.candles`` (no candle for ``CANDLE_MAX_AGE_HOURS``) is stale. With fewer than
            20 symbols, the default reports the first that is behind.
        ops_runlog_keep: Rows of ``ops.ops_runlog`` that stay: a week of runs.
    """

    env_name: Annotated[Literal["DEV", "TEST", "STAGE", "PROD"], _UPPER] = "DEV"
    job_name: str = "agg-master"
    max_tasks_per_run: _Count = 20
    max_windows_per_task: _Count = 100
    running_stale_seconds: _Count = 900
    auto_disable_hard_fails: _Count = 3
    agg_derivation_version: _Count = 1
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], _UPPER] = "INFO"
    ohlcv_symbols_per_shard: _Count = 5000
    candle_retention_days: _Days | None = None
    candle_max_age_hours: Annotated[PositiveInt, Field(le=_CENTURY_IN_DAYS * 24)] = 96
    ohlcv_max_behind_percent: Annotated[int, Field(ge=0, le=99)] = 5
    ops_runlog_keep: _Count = 2000


ALL: tuple[type[Settings], ...] = (
    ScheduleSettings,
    DeadlineSettings,
    ApiSettings,
    AnalyticsSettings,
    KpiSettings,
    OhlcvSettings,
)
"""Every class of settings."""
