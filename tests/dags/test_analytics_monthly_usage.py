"""Events of a UTC month, compared with DuckDB."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import analytics_data as data
from tests.analytics_data import ORGANIZATIONS, examples, run, run_twice, store
from tests.oracles import monthly_type, monthly_usage_of

if TYPE_CHECKING:
    import psycopg
    from airflow.dag_processing.dagbag import DagBag

ACTIVITY = "analytics.contact_activity"
WRITTEN = "analytics.event_aggregates"
MONTHS = [datetime(2024, 2, 1), datetime(2025, 2, 1), datetime(2025, 12, 1), datetime(2026, 1, 1)]


@pytest.fixture
def task(dag_bag: DagBag) -> Any:
    return dag_bag.dags["analytics_monthly_usage"].get_task("summarize_usage")


def end_of(month: datetime) -> datetime:
    return (month + timedelta(days=31)).replace(day=1)


def stored(connection: psycopg.Connection, month: datetime) -> list[tuple[Any, ...]]:
    query = f"""
        select organization_id::text, event_type, count, unique_count from {WRITTEN}
        where date = %s and channel = 'monthly_summary' order by organization_id, event_type collate "C"
    """
    return connection.execute(query, [month]).fetchall()


@pytest.mark.slow
@examples
@given(st.data())
def test_any_month_equals_the_result_of_duckdb(task: Any, analytics_db: psycopg.Connection, drawn: Any) -> None:
    month = drawn.draw(st.sampled_from(MONTHS))
    rows = drawn.draw(data.activity(month, end_of(month)))
    data.replace(analytics_db, ACTIVITY, rows, WRITTEN)
    run_twice(task, month, end_of(month))
    assert stored(analytics_db, month) == monthly_usage_of(rows, month)


@pytest.mark.slow
@examples
@given(data.activity(MONTHS[2], end_of(MONTHS[2])), st.permutations([MONTHS[2], MONTHS[3]]))
def test_months_in_any_order_give_the_same_tables(
    task: Any, analytics_db: psycopg.Connection, rows: Any, months: Any
) -> None:
    data.replace(analytics_db, ACTIVITY, rows, WRITTEN)
    for month in months:
        run(task, month, end_of(month))
    for month in months:
        assert stored(analytics_db, month) == monthly_usage_of(rows, month)


def test_long_types_stay_distinct_and_fit(task: Any, analytics_db: psycopg.Connection) -> None:
    types = ["y" * length for length in range(90, 101)] + ["y" * 99 + "z"]
    event = {"organization_id": ORGANIZATIONS[0], "created_at": MONTHS[0]}
    store(analytics_db, ACTIVITY, [event | {"event_type": type_} for type_ in types])

    assert run(task, MONTHS[0], end_of(MONTHS[0]))["inserted"] == len(types)

    names = {row[1] for row in stored(analytics_db, MONTHS[0])}
    assert names == set(map(monthly_type, types))
    assert max(map(len, names)) == 100


def test_late_event_is_counted_by_a_cleared_run(task: Any, analytics_db: psycopg.Connection) -> None:
    event = {"organization_id": ORGANIZATIONS[0], "event_type": "page_view", "created_at": MONTHS[0]}
    for count in (1, 2):
        store(analytics_db, ACTIVITY, [event])
        run(task, MONTHS[0], end_of(MONTHS[0]))
        assert stored(analytics_db, MONTHS[0]) == [(ORGANIZATIONS[0], "monthly:page_view", count, 0)]
