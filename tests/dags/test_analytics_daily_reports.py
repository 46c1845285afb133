"""Email counts per campaign and UTC day, compared with DuckDB."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import analytics_data as data
from tests.analytics_data import CAMPAIGNS, ORGANIZATIONS, examples, run_day, run_twice, store
from tests.oracles import campaign_stats_of

if TYPE_CHECKING:
    import psycopg
    from airflow.dag_processing.dagbag import DagBag

ACTIVITY = "analytics.contact_activity"
WRITTEN = "analytics.campaign_daily_stats"
DAY = datetime(2024, 2, 29)
NEXT = DAY + timedelta(days=1)
COLUMNS = """campaign_id::text, organization_id::text, sent, delivered, opened, unique_opened, clicked, unique_clicked,
    bounced, complained, unsubscribed"""


@pytest.fixture
def task(dag_bag: DagBag) -> Any:
    return dag_bag.dags["analytics_daily_reports"].get_task("report_campaigns")


def stored(connection: psycopg.Connection, day: datetime) -> list[tuple[Any, ...]]:
    query = f"select {COLUMNS} from {WRITTEN} where date = %s order by campaign_id, organization_id"
    return connection.execute(query, [day]).fetchall()


@pytest.mark.slow
@examples
@given(data.activity(DAY, NEXT))
def test_any_day_equals_the_result_of_duckdb(task: Any, analytics_db: psycopg.Connection, rows: Any) -> None:
    data.replace(analytics_db, ACTIVITY, rows, WRITTEN)
    run_twice(task, DAY, NEXT)
    assert stored(analytics_db, DAY) == campaign_stats_of(rows, DAY)


@pytest.mark.slow
@examples
@given(data.activity(DAY, NEXT), st.permutations([-1, 0, 1]))
def test_days_in_any_order_give_the_same_tables(
    task: Any, analytics_db: psycopg.Connection, rows: Any, ages: Any
) -> None:
    data.replace(analytics_db, ACTIVITY, rows, WRITTEN)
    days = [DAY + timedelta(days=age) for age in ages]
    for day in days:
        run_day(task, day)
    for day in days:
        assert stored(analytics_db, day) == campaign_stats_of(rows, day)


def test_late_mail_is_counted_by_a_cleared_run(task: Any, analytics_db: psycopg.Connection) -> None:
    mail = {"organization_id": ORGANIZATIONS[0], "contact_id": None, "event_source": CAMPAIGNS[0], "created_at": DAY}
    store(analytics_db, ACTIVITY, [mail | {"event_type": "email_sent"}])
    run_day(task, DAY)
    store(analytics_db, ACTIVITY, [mail | {"event_type": "email_opened"}])
    assert run_day(task, DAY) == {"inserted": 0, "updated": 1, "unchanged": 0, "duplicates": 0, "suspicious": False}
    assert stored(analytics_db, DAY) == [(CAMPAIGNS[0], ORGANIZATIONS[0], 1, 0, 1, 0, 0, 0, 0, 0, 0)]
