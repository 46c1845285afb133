from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from dev.sample import analytics
from dev.sample.load import activity_since, load_analytics

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg
    from airflow.dag_processing.dagbag import DagBag

DAY = date(2024, 2, 29)


def test_day_of_activity_has_every_case_of_the_rollups() -> None:
    rows = list(analytics.contact_activity(DAY))
    assert 200 < len(rows) < 800
    assert {row["created_at"].date() for row in rows} == {DAY}
    assert {row["organization_id"] for row in rows} == set(analytics.organizations().values())
    types = Counter(row["event_type"] for row in rows)
    assert types["email_sent"] == types["email_delivered"] + types["email_bounced"]
    assert min(types["email_bounced"], types["email_opened"], types["email_clicked"], types["page_view"]) > 0
    assert None in {row["contact_id"] for row in rows}
    assert None in {row["event_source"] for row in rows}
    bounced = [row["event_data"] for row in rows if row["event_type"] == "email_bounced"]
    assert any(domain in data for data in bounced for domain in analytics.DISPOSABLE_DOMAINS)


def test_one_organization_has_a_single_score() -> None:
    scores = list(analytics.lead_scores())
    assert min(Counter(row["organization_id"] for row in scores).values()) == 1
    assert {0 <= row["total_score"] <= 100 for row in scores} == {True}


def test_some_jobs_fail_and_some_of_them_cost() -> None:
    jobs = [job for age in range(8) for job in analytics.enrichment_jobs(DAY + timedelta(days=age))]
    kinds = Counter((job["status"], job["total_cost"] is not None) for job in jobs)
    assert kinds.keys() == {("completed", True), ("failed", True), ("failed", False), ("pending", False)}
    assert len({job["id"] for job in jobs}) == len(jobs)


def test_same_day_has_the_same_rows() -> None:
    assert list(analytics.contact_activity(DAY)) == list(analytics.contact_activity(DAY))
    assert list(analytics.enrichment_jobs(DAY)) != list(analytics.enrichment_jobs(DAY + timedelta(days=1)))


@pytest.mark.parametrize(
    ("now", "month"),
    [
        (datetime(2026, 11, 30, 23, 59, tzinfo=UTC), date(2026, 10, 1)),
        (datetime(2026, 12, 1, 0, 1, tzinfo=UTC), date(2026, 10, 1)),
        (datetime(2026, 12, 1, 3, 0, tzinfo=UTC), date(2026, 11, 1)),
        (datetime(2027, 1, 1, 2, 59, tzinfo=UTC), date(2026, 11, 1)),
        (datetime(2027, 1, 2, tzinfo=UTC), date(2026, 12, 1)),
    ],
)
def test_month_of_the_newest_run_has_activity(dag_bag: DagBag, now: datetime, month: date) -> None:
    dag: Any = dag_bag.dags["analytics_monthly_usage"]
    newest = dag.timetable.latest_interval(now)
    assert newest.start.date() == month
    assert activity_since(now.date()) <= month


@pytest.mark.slow
def test_second_load_replaces_the_sample_and_keeps_other_rows(migrated: Callable[..., psycopg.Connection]) -> None:
    connection = migrated("analytics")
    connection.execute("insert into scoring.lead_scores values (gen_random_uuid(), gen_random_uuid(), 7)")
    today = datetime.now(UTC).date()
    counts = []
    for _ in range(2):
        load_analytics(connection, today)
        counts.append(
            connection.execute("""
                select (select count(*) from analytics.contact_activity where created_at < current_date),
                    (select count(*) from scoring.lead_scores), (select count(*) from lead_intelligence.enrichment_jobs)
            """).fetchone()
        )
    assert counts[0] == counts[1]
    assert counts[0] is not None
    assert min(counts[0]) > 100
    ((first, last),) = connection.execute("select min(created_at), max(created_at) from analytics.contact_activity")
    assert first.date() == activity_since(today)
    assert last <= datetime.now(UTC).replace(tzinfo=None)
