"""Snapshots of lead scores, compared with integer arithmetic in DuckDB."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aggregator.core.errors import PermanentError
from tests import analytics_data as data
from tests.analytics_data import ORGANIZATIONS, examples, run_day, run_twice, store
from tests.oracles import score_distribution_of

if TYPE_CHECKING:
    import psycopg
    from airflow.dag_processing.dagbag import DagBag

SCORES = "scoring.lead_scores"
WRITTEN = "analytics.daily_score_distribution"
DAY = timedelta(days=1)


@pytest.fixture
def task(dag_bag: DagBag) -> Any:
    return dag_bag.dags["analytics_score_distribution"].get_task("snapshot_scores")


@pytest.fixture
def yesterday() -> datetime:
    """The window of the run that is due today."""
    return datetime.combine(datetime.now(UTC) - DAY, time())


def stored(connection: psycopg.Connection) -> list[tuple[Any, ...]]:
    query = f"""
        select organization_id::text, avg_score, min_score, max_score, p50, p90, p95, total_contacts from {WRITTEN}
        order by organization_id, date
    """
    return connection.execute(query).fetchall()


def dates(connection: psycopg.Connection) -> list[date]:
    return [row[0] for row in connection.execute(f"select date from {WRITTEN} order by organization_id, date")]


def scores_of(*scores: int, organization: str = ORGANIZATIONS[0]) -> list[dict[str, Any]]:
    return [
        {"organization_id": organization, "contact_id": str(UUID(int=number)), "total_score": score}
        for number, score in enumerate(scores)
    ]


def row_of(day: date, total_contacts: int = 0) -> dict[str, Any]:
    scores = dict.fromkeys(["avg_score", "min_score", "max_score", "p50", "p90", "p95"], 0)
    return {"organization_id": ORGANIZATIONS[0], "date": day, **scores, "total_contacts": total_contacts}


@pytest.mark.slow
@examples
@example([50], [1, 2])
@example([0] * 190 + [10] * 10, [-3, -2])  # 0.5 in floating point is 0.4999999999998 here
@given(st.lists(st.integers(0, 100), max_size=50), st.lists(st.integers(-9, 999), max_size=3))
def test_any_scores_equal_the_result_of_duckdb(
    task: Any, analytics_db: psycopg.Connection, yesterday: Any, many: Any, few: Any
) -> None:
    scores = scores_of(*many) + scores_of(*few, organization=ORGANIZATIONS[1])
    data.replace(analytics_db, SCORES, scores, WRITTEN)
    run_twice(task, yesterday, yesterday + DAY)
    assert stored(analytics_db) == score_distribution_of(scores)


def test_snapshot_has_the_day_it_is_taken_and_can_be_repeated(
    task: Any, analytics_db: psycopg.Connection, yesterday: Any
) -> None:
    data.replace(analytics_db, SCORES, scores_of(10, 20))
    run_day(task, yesterday)
    assert dates(analytics_db) == [(yesterday + DAY).date()]

    analytics_db.execute(f"update {SCORES} set total_score = 30")
    assert run_day(task, yesterday)["updated"] == 1
    assert stored(analytics_db)[0][4] == 30


def test_run_of_a_past_day_changes_no_stored_row(task: Any, analytics_db: psycopg.Connection, yesterday: Any) -> None:
    today = yesterday + DAY
    store(analytics_db, WRITTEN, [row_of((today - age * DAY).date(), total_contacts=7) for age in range(4)])
    before = stored(analytics_db)
    data.replace(analytics_db, SCORES, scores_of(10, 20))
    for age in (1, 2, 3, 30):
        assert sum(run_day(task, yesterday - age * DAY).values()) == 0
    assert stored(analytics_db) == before


def test_run_of_a_past_day_adds_only_missing_rows_of_today(
    task: Any, analytics_db: psycopg.Connection, yesterday: Any
) -> None:
    today = (yesterday + DAY).date()
    store(analytics_db, WRITTEN, [row_of(today, total_contacts=7)])
    store(analytics_db, SCORES, scores_of(10) + scores_of(20, organization=ORGANIZATIONS[1]))
    assert run_day(task, yesterday - 9 * DAY)["inserted"] == 1
    assert dates(analytics_db) == [today, today]
    assert [row[-1] for row in stored(analytics_db)] == [7, 1]


def test_contacts_without_a_score_do_not_count(task: Any, analytics_db: psycopg.Connection, yesterday: Any) -> None:
    analytics_db.execute(f"alter table {SCORES} alter total_score drop not null")
    store(analytics_db, SCORES, [*scores_of(5), scores_of(0, 0)[1] | {"total_score": None}])
    run_day(task, yesterday)
    assert stored(analytics_db) == [(ORGANIZATIONS[0], 5, 5, 5, 5, 5, 5, 1)]


def test_average_that_does_not_fit_is_refused_only_for_its_organization(
    task: Any, analytics_db: psycopg.Connection, yesterday: Any
) -> None:
    store(analytics_db, SCORES, scores_of(1000) + scores_of(20, organization=ORGANIZATIONS[1]))
    with pytest.raises(PermanentError, match=ORGANIZATIONS[0]):
        run_day(task, yesterday)
    assert [row[0] for row in stored(analytics_db)] == [ORGANIZATIONS[1]]
