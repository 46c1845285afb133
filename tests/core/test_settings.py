"""Settings are typed and checked; each product loads only its own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.timetables.base import TimeRestriction
from pydantic import SecretStr

from aggregator.alerts.freshness import State, check
from aggregator.core.catalog import CATALOG, deadline_of
from aggregator.core.errors import PermanentError
from aggregator.core.settings import (
    ALL,
    AnalyticsSettings,
    ApiSettings,
    DeadlineSettings,
    KpiSettings,
    OhlcvSettings,
    ScheduleSettings,
    Settings,
)
from aggregator.core.timetable import OffsetCronTimetable
from aggregator.wiring import timetable as timetable_of

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = {"environment", "job_name", "cron_secret", "n8n_api_key", "scheduler_api_key"}
"""Fields that accept any text."""

CHECKED = [(product, name) for product in ALL for name in product.model_fields if name not in TEXTS]


@pytest.fixture(params=CHECKED, ids=[name for _, name in CHECKED])
def wrong(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[type[Settings], str]:
    """A variable with an invalid value: the class of its product, and its name."""
    product, name = request.param
    monkeypatch.setenv(name.upper(), "no-such-value")
    return product, name


def test_error_names_the_variable_and_not_its_value(wrong: Any) -> None:
    product, name = wrong
    with pytest.raises(PermanentError, match=rf"Invalid settings: {name.upper()}: ") as caught:
        product.load()
    assert "no-such-value" not in str(caught.value)


def test_invalid_variable_affects_no_other_product(wrong: Any) -> None:
    product, _ = wrong
    for other in ALL:
        if other is not product:
            other.load()


@pytest.mark.slow
def test_all_dags_load_while_every_variable_is_invalid(monkeypatch: pytest.MonkeyPatch, repository: Path) -> None:
    for _, name in CHECKED:
        monkeypatch.setenv(name.upper(), "no-such-value")
    bag: Any = DagBag(repository / "dags")
    assert bag.import_errors == {}
    assert set(bag.dags) == set(CATALOG)
    for dag in bag.dags.values():
        (deadline,) = dag.deadline
        assert deadline.interval == CATALOG[dag.dag_id].deadline
        assert "AGGREGATOR_DEADLINES" in deadline.name
        if dag.dag_id != "kpi_dispatch":  # it has no window, so it has no start
            assert "AGGREGATOR_START_DATE" in dag.timetable.description


def test_invalid_start_date_prevents_only_the_first_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGGREGATOR_START_DATE", "yesterday")
    timetable = timetable_of(CATALOG["click_rollups"].schedule)
    assert isinstance(timetable, OffsetCronTimetable)
    timetable = timetable.deserialize(timetable.serialize())
    restriction = TimeRestriction(None, None, catchup=True)
    last = timetable.latest_interval(datetime(2026, 11, 16, 12, tzinfo=UTC))
    assert timetable.next_dagrun_info(last_automated_data_interval=None, restriction=restriction) is None
    following = timetable.next_dagrun_info(last_automated_data_interval=last, restriction=restriction)
    assert following is not None
    assert following.data_interval is not None
    assert following.data_interval.start == last.end
    backfill = TimeRestriction(last.start, None, catchup=True)
    info = timetable.next_dagrun_info(last_automated_data_interval=None, restriction=backfill)
    assert info is not None
    assert info.data_interval == last
    assert timetable.summary == "Daily at 01:00 UTC, for the UTC day before (start date unknown: see the tooltip)"


@pytest.mark.parametrize(
    ("variable", "table"),
    [
        ("MAX_TASKS_PER_RUN", "ohlcv.candles"),
        ("ENABLE_ANALYTICS_CRON", "analytics.enrichment_metrics"),
    ],
)
@pytest.mark.usefixtures("metadata_database")
def test_freshness_of_one_product_is_unknown_while_its_settings_are_invalid(
    monkeypatch: pytest.MonkeyPatch, variable: str, table: str
) -> None:
    for product in ("clicks", "market", "analytics", "telemetry", "kpi"):
        monkeypatch.delenv(f"AIRFLOW_CONN_{product.upper()}_DB", raising=False)
    monkeypatch.setenv(variable, "no-such-value")
    states = {found.target.table: found.state for found in check()}
    assert states[table] is State.UNKNOWN
    assert states["public.click_rollups"] is State.UNUSED


@pytest.mark.parametrize("value", ["yesterday", "2026-02-30", "2026-02-28T10:00:00", "0226-02-28", "9999-12-31"])
def test_invalid_start_date_is_rejected(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("AGGREGATOR_START_DATE", value)
    with pytest.raises(PermanentError, match="AGGREGATOR_START_DATE: ") as caught:
        ScheduleSettings.load()
    assert value not in str(caught.value)


def test_start_date_is_the_start_of_a_utc_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGGREGATOR_START_DATE", "2026-02-28")
    assert ScheduleSettings.load().start_date == datetime(2026, 2, 28, tzinfo=UTC)


@pytest.mark.parametrize("value", [None, "", " ", "\n"])
def test_blank_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    for name in ("AGGREGATOR_START_DATE", "CRON_SECRET", "MAX_TASKS_PER_RUN"):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert ScheduleSettings.load().start_date is None
    assert ApiSettings.load().cron_secret is None
    assert OhlcvSettings.load().max_tasks_per_run == 20


@pytest.mark.parametrize(
    ("product", "name", "value", "loaded"),
    [
        (ScheduleSettings, "aggregator_start_date", "2026-02-28", datetime(2026, 2, 28, tzinfo=UTC).date()),
        (DeadlineSettings, "aggregator_deadlines", '{"click_rollups": "PT1H"}', {"click_rollups": timedelta(hours=1)}),
        (ApiSettings, "cron_secret", "right", SecretStr("right")),
        (ApiSettings, "scheduler_api_key", "right", SecretStr("right")),
        (AnalyticsSettings, "enable_analytics_cron", "false", False),
        (AnalyticsSettings, "warmup_counter_store", "r2", "r2"),
        (KpiSettings, "n8n_api_key", "right", SecretStr("right")),
        (KpiSettings, "environment", "production", "production"),
        (OhlcvSettings, "env_name", "PROD", "PROD"),
        (OhlcvSettings, "job_name", "bars", "bars"),
        (OhlcvSettings, "max_tasks_per_run", "7", 7),
    ],
)
@pytest.mark.parametrize("around", ["\n", "\r\n", " "])
def test_blanks_and_line_breaks_around_a_value_are_removed(
    monkeypatch: pytest.MonkeyPatch, product: type[Settings], name: str, value: str, loaded: Any, around: str
) -> None:
    monkeypatch.setenv(name.upper(), f" {value}{around}")
    assert getattr(product.load(), name) == loaded


@pytest.mark.parametrize(
    ("product", "name"),
    [
        (KpiSettings, "job_timeout_minutes"),
        (KpiSettings, "kpi_jobs_keep_days"),
        (OhlcvSettings, "max_tasks_per_run"),
        (OhlcvSettings, "candle_retention_days"),
        (OhlcvSettings, "candle_max_age_hours"),
    ],
)
@pytest.mark.parametrize("value", ["0", "-1", "99999999999", "1.5"])
def test_number_out_of_range_is_rejected(
    monkeypatch: pytest.MonkeyPatch, product: type[Settings], name: str, value: str
) -> None:
    monkeypatch.setenv(name.upper(), value)
    with pytest.raises(PermanentError, match=f"{name.upper()}: "):
        product.load()


def test_deadlines_are_durations_by_dag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGGREGATOR_DEADLINES", '{"click_rollups": "PT90M", "telemetry_daily": "02:00:00"}')
    assert deadline_of("click_rollups") == timedelta(minutes=90)
    assert deadline_of("telemetry_daily") == timedelta(hours=2)
    assert deadline_of("ohlcv_aggregation") == CATALOG["ohlcv_aggregation"].deadline


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ('{"click_rollups": "soon"}', "AGGREGATOR_DEADLINES.click_rollups: "),
        ('{"click_rollups": "PT0S"}', "AGGREGATOR_DEADLINES.click_rollups: "),
        ('{"click_rollups": "P999999D"}', "AGGREGATOR_DEADLINES.click_rollups: "),
        ('["click_rollups"]', "AGGREGATOR_DEADLINES: "),
        ("soon", "AGGREGATOR_DEADLINES: not JSON"),
    ],
)
def test_invalid_deadlines_are_rejected_and_the_defaults_apply(
    monkeypatch: pytest.MonkeyPatch, value: str, said: str
) -> None:
    monkeypatch.setenv("AGGREGATOR_DEADLINES", value)
    with pytest.raises(PermanentError, match=said):
        DeadlineSettings.load()
    assert deadline_of("click_rollups") == CATALOG["click_rollups"].deadline


@pytest.mark.parametrize("different", ["{}", '{"my_clicks": "PT1H"}'])
def test_dag_without_an_entry_fails_with_what_to_add_and_where(monkeypatch: pytest.MonkeyPatch, different: str) -> None:
    monkeypatch.setenv("AGGREGATOR_DEADLINES", different)
    with pytest.raises(
        PermanentError,
        match=r"^DAG my_clicks has no entry .* CATALOG in plugins/aggregator/core/catalog\.py, with its facts: ",
    ):
        deadline_of("my_clicks")
    assert deadline_of("click_rollups") == CATALOG["click_rollups"].deadline


def test_deadline_of_an_unknown_dag_does_not_change_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGGREGATOR_DEADLINES", '{"no_such_dag": "PT1H", "click_rollups": "PT90M"}')
    assert deadline_of("click_rollups") == timedelta(minutes=90)
