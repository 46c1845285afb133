"""Settings from environment variables, one class for each product (spec: configuration).

Each product loads its own class, so an invalid value affects that product only. Secrets of other systems are not
settings: they are stored in Airflow connections or its secrets backend.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Literal, Self

from croniter import croniter  # type: ignore[import-untyped]
from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from aggregator.core.errors import PermanentError

_UPPER = BeforeValidator(str.upper)

# Upper limits: larger values overflow date arithmetic or PostgreSQL's integers.
_YEAR_IN_MINUTES = 366 * 24 * 60
_CENTURY_IN_DAYS = 36_600
_CRON_FIELDS = 5
_Count = Annotated[PositiveInt, Field(le=2**31 - 1)]
_Days = Annotated[PositiveInt, Field(le=_CENTURY_IN_DAYS)]


def _cron(value: str) -> str:
    if len(value.split()) != _CRON_FIELDS or not croniter.is_valid(value):
        raise ValueError("not a cron expression of five fields")
    return value


class Settings(BaseSettings):
    """Settings that are loaded together. The variable is the name of the field in capitals.

    Whitespace around a value is removed, because a secret from a file often ends with a line break. An empty value
    counts as not set.
    """

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True)

    @model_validator(mode="before")
    @classmethod
    def _strip(cls, values: dict[str, Any]) -> dict[str, Any]:
        stripped = {name: value.strip() if isinstance(value, str) else value for name, value in values.items()}
        return {name: value for name, value in stripped.items() if value != ""}

    @classmethod
    def load(cls) -> Self:
        """Load the settings of this class.

        Raises:
            PermanentError: At least one is invalid. The text names each and what is wrong, without the value.
        """
        try:
            return cls()
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join([str(e['loc'][0]).upper(), *map(str, e['loc'][1:])])}: {e['msg']}"
                for e in error.errors(include_input=False)
            )
            raise PermanentError(f"Invalid settings: {problems}. Correct these environment variables.") from None
        except SettingsError:
            names = ", ".join(name.upper() for name, field in cls.model_fields.items() if field.default_factory)
            raise PermanentError(f"Invalid settings: {names}: not JSON. Correct this environment variable.") from None


class ScheduleSettings(Settings):
    """The windows that the scheduler processes.

    Attributes:
        aggregator_start_date: First UTC day (``YYYY-MM-DD``) that the scheduler processes. Not set: each DAG starts
            with the latest interval that is over. After its first interval, a DAG processes every interval, also after
            the scheduler was down.
    """

    aggregator_start_date: Annotated[date, Field(ge=date(2000, 1, 1), le=date(2100, 1, 1))] | None = None

    @property
    def start_date(self) -> datetime | None:
        """Start of the day ``aggregator_start_date``, in UTC."""
        day = self.aggregator_start_date
        return None if day is None else datetime.combine(day, time.min, UTC)


class DeadlineSettings(Settings):
    """The deadlines of scheduled runs.

    Attributes:
        aggregator_deadlines: Deadlines that differ from the defaults in ``docs/operate/alerts.md``: a JSON object of
            ISO 8601 durations by DAG, ``{"click_rollups": "PT45M"}``. A deadline is the longest time from when a
            scheduled run is due to its end.
    """

    aggregator_deadlines: dict[str, Annotated[timedelta, Field(gt=timedelta(), le=timedelta(days=366))]] = Field(
        default_factory=dict
    )


class ObjectiveSettings(Settings):
    """The objectives of scheduled runs.

    Attributes:
        aggregator_objectives: Objectives that differ from 99: a JSON object of percentages by DAG,
            ``{"click_rollups": 99.9}``. An objective is the share of scheduled runs that end before their deadline. The
            Operations page compares it with the last 30 days. Set it for the API server.
    """

    aggregator_objectives: dict[str, Annotated[float, Field(gt=0, le=100)]] = Field(default_factory=dict)


class ApiSettings(Settings):
    """Secrets of clients of the API server.

    Attributes:
        cron_secret: Bearer token of requests to ``/api/jobs`` and ``/api/freshness``. Set it for the API server. Not
            set: all requests are refused (503).
        scheduler_api_key: Bearer token of n8n's reports about KPIs. Set it for the API server. Not set: all reports are
            refused (503).
    """

    cron_secret: SecretStr | None = None
    scheduler_api_key: SecretStr | None = None


class AnalyticsSettings(Settings):
    """Settings of the analytics suite.

    Attributes:
        enable_analytics_cron: ``false`` pauses the six analytics DAGs: their scheduled runs are skipped and change no
            data. Manual runs and backfills are not paused. Clear the skipped runs after the pause to catch up.
        warmup_counter_store: Store of the warm-up counters: ``postgres`` (``delivery.warmup_counters``) or ``r2``
            (objects ``warmup/daily/{organization}/{domain}``, connection ``warmup_r2``).
    """

    enable_analytics_cron: bool = True
    warmup_counter_store: Literal["postgres", "r2"] = "postgres"


class KpiSettings(Settings):
    """Settings of KPI dispatch.

    Attributes:
        n8n_api_key: Key of n8n's webhooks, if the connection ``n8n`` has no password. It is sent only to the
            connection's ``allowed_origins``.
        n8n_read_timeout_seconds: Longest time for n8n's response, in seconds, 480 at most. Raise it if n8n queues
            webhooks (as n8n Cloud does), or if workflows respond when they end. A KPI without a response is
            ``unknown``.
        kpi_dispatch_cron: Cron expression of the dispatch in UTC, ``0 12 * * *`` if not set. One run of a UTC day sends
            a KPI, so only the first of several times a day sends it.
        kpi_requests_at_once: Maximum number of KPIs that are sent to one n8n (scheme, host and port) at the same time.
        environment: Name of the deployment in requests to n8n and in job records, e.g. ``production``.
        job_timeout_minutes: Longest time from the request of a KPI to its report, in minutes.
        kpi_jobs_keep_days: Retention of job records, in days. Older runs send nothing without the param ``resend``.
    """

    n8n_api_key: SecretStr | None = None
    n8n_read_timeout_seconds: Annotated[PositiveInt, Field(le=480)] = 30
    kpi_dispatch_cron: Annotated[str, AfterValidator(_cron)] | None = None
    kpi_requests_at_once: Annotated[PositiveInt, Field(le=256)] = 16
    environment: str = "development"
    job_timeout_minutes: Annotated[PositiveInt, Field(le=_YEAR_IN_MINUTES)] = 30
    kpi_jobs_keep_days: _Days = 90


class OhlcvSettings(Settings):
    """Settings of OHLCV.

    Attributes:
        env_name: ``DEV``, ``TEST``, ``STAGE`` or ``PROD``. OHLCV processes the assets that are ``active``; in ``DEV``
            and ``TEST`` also those that are ``test_active``.
        job_name: Name of OHLCV's job in its run log and its issues.
        max_tasks_per_run: Maximum number of OHLCV tasks (a symbol and a timeframe) that a run claims. The default is
            that of the Workers, whose CPU time was limited: with five symbols some tasks wait, with a hundred they
            starve. The local stack and ``docker-compose.yaml`` set 100000.
        max_windows_per_task: Maximum number of new windows of an OHLCV task, and of stale ones, in one transaction. A
            run starts more transactions until its deadline or the next run. This limits the length of a transaction,
            not the work of a run. The local stack and ``docker-compose.yaml`` set 5000.
        running_stale_seconds: Age of an OHLCV task's lock, in seconds of the database's clock, after which another run
            takes the lock over.
        auto_disable_hard_fails: Permanent errors in a row after which an OHLCV task is ``disabled``, or ``hard_failed``
            if it is mandatory.
        agg_derivation_version: Stored with each bar. Raise it when the derivation of bars changes, then rebuild.
        log_level: Level of OHLCV's log.
        ohlcv_symbols_per_shard: Symbols whose bars one transaction builds. A task instance has two transactions open.
        candle_retention_days: Candles of months that ended longer ago are dropped after they are aggregated. Their bars
            are kept.
        candle_max_age_hours: Age of a symbol's newest candle, in hours, above which its feed counts as dead. The
            default covers a long weekend. Use 1 for markets that never close.
        ohlcv_max_behind_percent: Share of symbols, in percent, that may be behind before ``ohlcv.bars`` (candles are
            not built) or ``ohlcv.candles`` (no candle for ``CANDLE_MAX_AGE_HOURS``) is stale. With fewer than 20
            symbols, the default reports the first symbol that is behind.
        ops_runlog_keep: Number of rows that are kept in ``ops.ops_runlog``; the default is a week of runs.
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


class MaintenanceSettings(Settings):
    """Settings of the daily maintenance.

    Attributes:
        aggregator_keep_days: Retention of Airflow's history (runs, task instances, XComs, its audit log), of task logs,
            and of resolved alerts and dead letters, in days. Older runs cannot be cleared; a backfill creates them
            again. At least 8, because alerts consider the failures of a week.
    """

    aggregator_keep_days: Annotated[int, Field(ge=8, le=_CENTURY_IN_DAYS)] = 90


ALL = tuple(Settings.__subclasses__())
"""Every class of settings, in the order of this file."""
