"""Metrics of the enrichment jobs of a UTC day, compared with integer arithmetic in DuckDB."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import analytics_data as data
from tests.analytics_data import ORGANIZATIONS, examples, run_day, run_twice, store
from tests.oracles import enrichment_metrics_of

if TYPE_CHECKING:
    import psycopg
    from airflow.dag_processing.dagbag import DagBag

JOBS = "lead_intelligence.enrichment_jobs"
WRITTEN = "analytics.enrichment_metrics"
DAY = datetime(2024, 2, 29)
NEXT = DAY + timedelta(days=1)


@pytest.fixture
def task(dag_bag: DagBag) -> Any:
    return dag_bag.dags["analytics_enrichment_metrics"].get_task("measure_enrichment")


def stored(connection: psycopg.Connection, day: datetime = DAY) -> list[tuple[Any, ...]]:
    query = f"""
        select organization_id::text, total_enriched, success_rate, avg_cost, avg_freshness from {WRITTEN}
        where date = %s order by organization_id
    """
    return connection.execute(query, [day]).fetchall()


def jobs() -> st.SearchStrategy[list[dict[str, Any]]]:
    ages = [timedelta(hours=hours) for hours in (-30, 0, 10.8, 12, 32.4, 90 * 24, 90 * 24 - 10.8, 100 * 24)]
    row = st.fixed_dictionaries(
        {
            "organization_id": st.sampled_from(ORGANIZATIONS),
            "status": st.sampled_from(["completed", "completed", "failed", "pending", "", "Completed"]),
            "total_cost": st.none() | st.integers(0, 99_999).map(lambda cost: Decimal(cost).scaleb(-4)),
            "created_at": data.timestamps(DAY, NEXT),
            "completed_at": st.none() | st.sampled_from([NEXT - age for age in ages]) | data.timestamps(DAY, NEXT),
        }
    )
    return st.lists(row, max_size=30)


@pytest.mark.slow
@examples
@given(jobs())
def test_any_day_equals_the_result_of_duckdb(task: Any, analytics_db: psycopg.Connection, rows: Any) -> None:
    data.replace(analytics_db, JOBS, rows, WRITTEN)
    run_twice(task, DAY, NEXT)
    assert stored(analytics_db) == enrichment_metrics_of(rows, DAY, NEXT)


@pytest.mark.slow
@examples
@given(jobs(), st.permutations([-1, 0, 1]))
def test_days_in_any_order_give_the_same_tables(
    task: Any, analytics_db: psycopg.Connection, rows: Any, ages: Any
) -> None:
    data.replace(analytics_db, JOBS, rows, WRITTEN)
    days = [DAY + timedelta(days=age) for age in ages]
    for day in days:
        run_day(task, day)
    for day in days:
        assert stored(analytics_db, day) == enrichment_metrics_of(rows, day, day + timedelta(days=1))


def test_job_that_completed_since_is_counted_by_a_cleared_run(task: Any, analytics_db: psycopg.Connection) -> None:
    job = {"organization_id": ORGANIZATIONS[0], "status": "running", "total_cost": None, "created_at": DAY}
    store(analytics_db, JOBS, [job])
    run_day(task, DAY)
    assert stored(analytics_db) == [(ORGANIZATIONS[0], 0, 0, 0, 0)]

    analytics_db.execute(f"update {JOBS} set status = 'completed', total_cost = 0.5, completed_at = %s", [NEXT])
    assert run_day(task, DAY)["updated"] == 1
    assert stored(analytics_db) == [(ORGANIZATIONS[0], 1, 100, Decimal("0.5"), 1)]


@pytest.mark.parametrize(("completed_at", "freshness"), [("infinity", 1), ("-infinity", 0)])
def test_completion_at_infinity_counts_as_the_limit(
    task: Any, analytics_db: psycopg.Connection, completed_at: str, freshness: int
) -> None:
    job = {"organization_id": ORGANIZATIONS[0], "status": "completed", "created_at": DAY}
    store(analytics_db, JOBS, [{**job, "completed_at": completed_at}])
    run_day(task, DAY)
    assert stored(analytics_db) == [(ORGANIZATIONS[0], 1, 100, 0, freshness)]


def test_cost_that_is_not_a_number_is_left_out_of_the_average(task: Any, analytics_db: psycopg.Connection) -> None:
    job = {"organization_id": ORGANIZATIONS[0], "status": "completed", "created_at": DAY, "completed_at": NEXT}
    store(analytics_db, JOBS, [{**job, "total_cost": Decimal(cost)} for cost in ("NaN", "0.5", "1.5")])
    run_day(task, DAY)
    assert stored(analytics_db) == [(ORGANIZATIONS[0], 3, 100, 1, 1)]
