"""The facts of every DAG. To add a DAG, add its file in ``dags/`` and its entry in :data:`CATALOG`.

The DAG's arguments, deadlines, freshness checks, dead letters and the generated documents derive from the entry.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

from croniter import croniter  # type: ignore[import-untyped]

from aggregator.core.errors import PermanentError
from aggregator.core.settings import DeadlineSettings, KpiSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Owner(StrEnum):
    """The team that is responsible for a DAG."""

    ANALYTICS = "analytics"
    CLICKS = "clicks"
    KPI = "kpi"
    MARKET_DATA = "market-data"
    TELEMETRY = "telemetry"


class Tag(StrEnum):
    """The allowed tags: products, and external systems that a DAG reads from or sends to."""

    ANALYTICS = "analytics"
    CLICKS = "clicks"
    BILLING = "billing"
    ANALYTICS_ENGINE = "analytics-engine"
    OHLCV = "ohlcv"
    TELEMETRY = "telemetry"
    KPI = "kpi"
    N8N = "n8n"


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When a DAG runs.

    Attributes:
        cron: Boundaries of the data intervals, in UTC; of a DAG without data intervals, the times of its runs.
        every: Longest time between two boundaries.
        offset: Time from the end of a data interval to its run; None for a DAG without data intervals.
    """

    cron: str
    every: timedelta
    offset: timedelta | None


@dataclass(frozen=True, kw_only=True)
class FreshnessRule:
    """How the freshness of a table is checked.

    Attributes:
        table: ``schema.table``, the target of the DAG, or one of its sources; a note in brackets may follow.
        conn_id: Connection of its database.
        sql: Query below ``include/sql``. It returns the end of the stored data, and the start of the first window that
            has source data but no stored data.
        source: What the rows are made of, as alerts name it.
        window: Longest window of a row, if it differs from the schedule's.
        is_feed: Whether an external system writes the table. ``CANDLE_MAX_AGE_HOURS`` limits the age of its data.
    """

    table: str
    conn_id: str
    sql: str
    source: str
    window: timedelta | None = None
    is_feed: bool = False


@dataclass(frozen=True, kw_only=True)
class DagFacts:
    """One entry of the catalog.

    Attributes:
        description: One line for the list of DAGs, without a period.
        owner: The responsible team.
        tags: At least one.
        schedule: When the DAG runs.
        deadline: Longest time from when a scheduled run is due to its end. ``AGGREGATOR_DEADLINES`` overrides it.
        writes: Tables that the DAG writes, as ``schema.table``.
        conn_id: Connection of the database with these tables; None for a DAG without a database.
        rights: Table → rights that the connection's role needs, for tables that the DAG reads, and for written tables
            that need others than `WRITE`.
        impact: Consequence of missing data, one sentence for alerts.
        freshness: How its tables are checked; empty if no table shows whether the DAG has run.
        message: Message of the former queue, the type of the DAG's dead letters. Only DAGs of the analytics suite have
            one.
        catches_up: Whether the next scheduled run does the work of a failed run.
    """

    description: str
    owner: Owner
    tags: tuple[Tag, ...]
    schedule: Schedule
    deadline: timedelta
    writes: tuple[str, ...]
    impact: str
    conn_id: str | None = None
    rights: Mapping[str, str] = field(default_factory=dict)
    freshness: tuple[FreshnessRule, ...] = ()
    message: str | None = None
    catches_up: bool = False


ALL = "select, insert, update, delete"
"""Rights on a table of which rows are deleted, too."""

WRITE = "select, insert, update"
"""Rights on a table that is written by an upsert."""

_TIMES_OF_CRON = 1000
"""Number of times of a cron expression whose gaps are compared: years for a daily one, weeks for one of minutes."""

_MINUTE = timedelta(minutes=1)
_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)


def _daily(offset: timedelta) -> Schedule:
    return Schedule(cron="0 0 * * *", every=_DAY, offset=offset)


def _suite(table: str, *, source: str | None = None, freshness: str = "", note: str = "", **facts: Any) -> DagFacts:
    """The facts of a DAG of the analytics suite, which writes one table from one source of ``analytics_db``."""
    rule = FreshnessRule(table=f"{table}{note}", conn_id="analytics_db", sql=freshness, source=source or "")
    return DagFacts(
        owner=Owner.ANALYTICS,
        tags=(Tag.ANALYTICS,),
        writes=(table,),
        conn_id="analytics_db",
        freshness=(rule,) if source else (),
        **facts,
    )


CATALOG: dict[str, DagFacts] = {
    "ohlcv_aggregation": DagFacts(
        description="Bars of 15m, 1h, 4h and 1d from base candles",
        owner=Owner.MARKET_DATA,
        tags=(Tag.OHLCV,),
        schedule=Schedule(cron="*/5 * * * *", every=5 * _MINUTE, offset=_MINUTE),
        deadline=4 * _MINUTE,
        writes=("ohlcv.bars",),
        impact="Readers of ohlcv.bars get outdated bars.",
        conn_id="market_db",
        rights={
            **dict.fromkeys(("ohlcv.bars", "ohlcv.tasks", "ohlcv.stale_windows", "ohlcv.candle_changes"), ALL),
            **dict.fromkeys(("ops.ops_runlog", "ops.ops_runlog_tasks", "ops.ops_issues"), ALL),
            "ohlcv.assets": "select",
            "ohlcv.candles": f"{ALL}, own",
        },
        freshness=(
            FreshnessRule(
                table="ohlcv.bars",
                conn_id="market_db",
                sql="ohlcv/queries/freshness.sql",
                source="candles",
                window=15 * _MINUTE,
            ),
            FreshnessRule(
                table="ohlcv.candles",
                conn_id="market_db",
                sql="ohlcv/queries/candle_freshness.sql",
                source="candles",
                is_feed=True,
            ),
        ),
        catches_up=True,
    ),
    "click_rollups": DagFacts(
        description="Clicks per hire and UTC day, from Analytics Engine, for billing",
        owner=Owner.CLICKS,
        tags=(Tag.CLICKS, Tag.BILLING, Tag.ANALYTICS_ENGINE),
        schedule=_daily(_HOUR),
        deadline=_HOUR,
        writes=("public.click_rollups",),
        impact="Billing reads public.click_rollups at 02:00 UTC and misses these clicks.",
        conn_id="clicks_db",
        rights={"public.hires": "select"},
        freshness=(
            FreshnessRule(
                table="public.click_rollups", conn_id="clicks_db", sql="clicks/queries/freshness.sql", source="clicks"
            ),
        ),
    ),
    "telemetry_daily": DagFacts(
        description="Events per type and UTC day, from the product's raw telemetry",
        owner=Owner.TELEMETRY,
        tags=(Tag.TELEMETRY,),
        schedule=_daily(2 * _HOUR),
        deadline=_HOUR,
        writes=("public.telemetry_daily",),
        impact="public.telemetry_daily lacks these events.",
        conn_id="telemetry_db",
        rights={"public.telemetry": "select"},
        freshness=(
            FreshnessRule(
                table="public.telemetry_daily",
                conn_id="telemetry_db",
                sql="telemetry/queries/freshness.sql",
                source="events",
            ),
        ),
    ),
    "kpi_dispatch": DagFacts(
        description="Starts the n8n workflow of every active KPI",
        owner=Owner.KPI,
        tags=(Tag.KPI, Tag.N8N),
        schedule=Schedule(cron="0 12 * * *", every=_DAY, offset=None),
        deadline=45 * _MINUTE,
        writes=("kpi.jobs", "kpi.job_kpis"),
        impact="Some KPI workflows may not have been started in n8n.",
        conn_id="kpi_db",
        rights=dict.fromkeys(("kpi.jobs", "kpi.job_kpis"), ALL),
        freshness=(FreshnessRule(table="kpi.jobs", conn_id="kpi_db", sql="kpi/queries/freshness.sql", source="jobs"),),
    ),
    "analytics_hourly_aggregation": _suite(
        "analytics.event_aggregates",
        rights={"analytics.contact_activity": "select"},
        source="events",
        freshness="analytics/queries/freshness_of_hourly_aggregation.sql",
        description="Events and distinct contacts per organization, UTC day and type",
        schedule=Schedule(cron="0 * * * *", every=_HOUR, offset=timedelta()),
        deadline=15 * _MINUTE,
        impact="Event counts in analytics.event_aggregates are too low.",
        message="analytics.aggregate-hourly",
    ),
    "analytics_daily_reports": _suite(
        "analytics.campaign_daily_stats",
        rights={"analytics.contact_activity": "select"},
        source="mails",
        freshness="analytics/queries/freshness_of_daily_reports.sql",
        description="Email counts per campaign and UTC day",
        schedule=_daily(2 * _HOUR),
        deadline=_HOUR,
        impact="Campaign reports lack these emails.",
        message="analytics.generate-daily-reports",
    ),
    "analytics_warmup_reset": _suite(
        "delivery.warmup_counters",
        rights={"delivery.sending_domains": "select", "delivery.warmup_counters": "select, delete"},
        description="Resets the daily counters of sending domains that warm up",
        schedule=_daily(timedelta()),
        deadline=30 * _MINUTE,
        impact="Domains that warm up may stop sending, because emails of the day before still count.",
        message="analytics.warmup-daily-reset",
    ),
    "analytics_monthly_usage": _suite(
        "analytics.event_aggregates",
        rights={"analytics.contact_activity": "select"},
        source="events",
        freshness="analytics/queries/freshness_of_monthly_usage.sql",
        note=" (months)",
        description="Events and distinct contacts per organization, type and UTC month",
        schedule=Schedule(cron="0 0 1 * *", every=31 * _DAY, offset=3 * _HOUR),
        deadline=2 * _HOUR,
        impact="The monthly usage in analytics.event_aggregates is incomplete.",
        message="analytics.monthly-usage-summary",
    ),
    "analytics_score_distribution": _suite(
        "analytics.daily_score_distribution",
        rights={"scoring.lead_scores": "select"},
        source="scores",
        freshness="analytics/queries/freshness_of_score_distribution.sql",
        description="Daily snapshot of each organization's distribution of lead scores",
        schedule=_daily(4 * _HOUR),
        deadline=_HOUR,
        impact="analytics.daily_score_distribution lacks this snapshot.",
        message="analytics.score-distribution",
    ),
    "analytics_enrichment_metrics": _suite(
        "analytics.enrichment_metrics",
        rights={"lead_intelligence.enrichment_jobs": "select"},
        source="jobs",
        freshness="analytics/queries/freshness_of_enrichment_metrics.sql",
        description="Success rate, cost and freshness of each organization's lead enrichment per UTC day",
        schedule=_daily(5 * _HOUR),
        deadline=_HOUR,
        impact="analytics.enrichment_metrics lacks these jobs.",
        message="analytics.enrichment-metrics",
    ),
}
"""DAG id → its facts."""


def facts_of(dag_id: str) -> DagFacts:
    """The entry of a DAG."""
    if dag_id not in CATALOG:
        required = ", ".join(field.name for field in fields(DagFacts) if field.default is MISSING)
        raise PermanentError(
            f"DAG {dag_id} has no entry in the catalog, so it is not loaded. Add {dag_id!r} to CATALOG in "
            f"plugins/aggregator/core/catalog.py, with its facts: {required}."
        )
    return CATALOG[dag_id]


def schedule_of(dag_id: str) -> Schedule:
    """When a DAG runs: ``KPI_DISPATCH_CRON`` overrides the catalog's cron expression of ``kpi_dispatch``.

    While a setting of KPI dispatch is invalid, this is the catalog's schedule. The tasks of the run then name the
    setting and send nothing.

    Raises:
        PermanentError: The DAG has no entry in the catalog.
    """
    schedule = facts_of(dag_id).schedule
    if dag_id != "kpi_dispatch":
        return schedule
    try:
        cron = KpiSettings.load().kpi_dispatch_cron
    except PermanentError:
        return schedule
    return replace(schedule, cron=cron, every=_longest_gap(cron)) if cron else schedule


@cache
def _longest_gap(cron: str) -> timedelta:
    """The longest time between two of the next times of a cron expression."""
    # From a fixed date, so that every process has the same result.
    times: Iterator[datetime] = croniter(cron, datetime(2024, 1, 1, tzinfo=UTC)).all_next(datetime)
    return max(later - earlier for earlier, later in pairwise(islice(times, _TIMES_OF_CRON)))


def deadline_of(dag_id: str) -> timedelta:
    """The longest time from when a scheduled run of a DAG is due to its end.

    Returns:
        The value in ``AGGREGATOR_DEADLINES``. If the setting is invalid or does not name the DAG, the catalog's value.
    """
    return deadline_settings()[0].get(dag_id, facts_of(dag_id).deadline)


def deadline_settings() -> tuple[dict[str, timedelta], str | None]:
    """The deadlines in ``AGGREGATOR_DEADLINES``, and what is wrong with the setting; None if it is valid."""
    try:
        deadlines = DeadlineSettings.load().aggregator_deadlines
    except PermanentError as error:
        return {}, f"{error} The default deadlines apply."
    if unknown := deadlines.keys() - CATALOG.keys():
        names = ", ".join(sorted(unknown))
        return deadlines, f"Invalid settings: AGGREGATOR_DEADLINES: there is no DAG {names}. Correct its name."
    return deadlines, None
