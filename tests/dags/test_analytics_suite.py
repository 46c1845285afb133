"""Requirements on the DAGs of the analytics suite, in addition to those on all DAGs (spec: analytics suite)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from aggregator.alerts import dead_letters
from aggregator.core.catalog import CATALOG, Owner
from aggregator.core.errors import PermanentError
from aggregator.wiring import check_params_and_pause
from tests.analytics_data import ORGANIZATIONS, run

if TYPE_CHECKING:
    import psycopg
    from airflow.dag_processing.dagbag import DagBag


SCORES = ["avg_score", "min_score", "max_score", "p50", "p90", "p95", "total_contacts"]
METRICS = ["total_enriched", "success_rate", "avg_cost", "avg_freshness"]


OVERFLOW = "9e131071"
"""A sum of two such values overflows PostgreSQL's numeric."""

ACTIVITY = """
alter table analytics.contact_activity rename to activity;
create view analytics.contact_activity as select
    organization_id, event_type, event_source, created_at,
    case when organization_id = '{poison}' then (1 / (length(event_type) - 10))::text::uuid else contact_id end
        as contact_id
from analytics.activity;
insert into analytics.activity (organization_id, event_type, event_source, created_at)
select organization, 'email_sent', '{good}', '{day}'
from unnest('{{ {poison}, {good}, {also_good} }}'::uuid[]) as organization
"""
SCORES_ = """
alter table scoring.lead_scores alter total_score type numeric;
insert into scoring.lead_scores values
    ('{poison}', '{good}', {overflow}), ('{poison}', '{poison}', {overflow}),
    ('{good}', '{good}', 5), ('{also_good}', '{good}', 7)
"""
JOBS = """
alter table lead_intelligence.enrichment_jobs alter total_cost type numeric;
insert into lead_intelligence.enrichment_jobs (organization_id, status, total_cost, created_at) values
    ('{poison}', 'completed', {overflow}, '{day}'), ('{poison}', 'completed', {overflow}, '{day}'),
    ('{good}', 'completed', 5, '{day}'), ('{also_good}', 'completed', 7, '{day}')
"""
POISON = {
    "analytics_hourly_aggregation": (ACTIVITY, "event_aggregates", "22012 division_by_zero"),
    "analytics_daily_reports": (ACTIVITY, "campaign_daily_stats", "22012 division_by_zero"),
    "analytics_monthly_usage": (ACTIVITY, "event_aggregates", "22012 division_by_zero"),
    "analytics_score_distribution": (SCORES_, "daily_score_distribution", "22003 numeric_value_out_of_range"),
    "analytics_enrichment_metrics": (JOBS, "enrichment_metrics", "22003 numeric_value_out_of_range"),
}


@pytest.fixture
def suite(dag_bag: DagBag) -> list[Any]:
    """The DAGs of the suite; not empty."""
    found = [dag for dag in dag_bag.dags.values() if dag.owner == Owner.ANALYTICS]
    assert found
    return found


def test_every_page_names_the_message_of_the_former_queue(suite: list[Any]) -> None:
    assert [dag.dag_id for dag in suite if not CATALOG[dag.dag_id].message] == []
    assert [dag.dag_id for dag in suite if f"`{CATALOG[dag.dag_id].message}`" not in dag.doc_md] == []


def test_every_task_has_the_pause_and_the_dead_letters(suite: list[Any]) -> None:
    for dag in suite:
        assert dead_letters.record in dag.on_failure_callback, dag.dag_id
        for task in dag.tasks:
            assert task._pre_execute_hook is check_params_and_pause, task.task_id
            assert task.on_failure_callback == [dead_letters.record], task.task_id
            assert task.on_success_callback == [dead_letters.resolve], task.task_id


@pytest.mark.parametrize(
    ("dag_id", "table", "row"),
    [
        ("analytics_hourly_aggregation", "event_aggregates", {"event_type": "x", "count": 1, "unique_count": 1}),
        (
            "analytics_monthly_usage",
            "event_aggregates",
            {"event_type": "x", "channel": "monthly_summary", "count": 1, "unique_count": 1},
        ),
        ("analytics_daily_reports", "campaign_daily_stats", {"campaign_id": ORGANIZATIONS[1]}),
        ("analytics_score_distribution", "daily_score_distribution", dict.fromkeys(SCORES, 1)),
        ("analytics_enrichment_metrics", "enrichment_metrics", dict.fromkeys(METRICS, 1)),
    ],
)
def test_rows_of_an_empty_source_are_kept_and_reported(
    dag_bag: DagBag, analytics_db: psycopg.Connection, dag_id: str, table: str, row: dict[str, Any]
) -> None:
    task: Any
    (task,) = dag_bag.dags[dag_id].tasks
    # A snapshot has the day on which it is taken.
    day = datetime.now(UTC).replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0)
    row = {"organization_id": ORGANIZATIONS[0], "date": f"{day:%Y-%m-%d}", **row}
    assert run(task, day, day + timedelta(days=1))["suspicious"] is False
    analytics_db.execute(
        f"insert into analytics.{table} ({', '.join(row)}) values ({', '.join(['%s'] * len(row))})", [*row.values()]
    )
    assert run(task, day, day + timedelta(days=1))["suspicious"] is True
    assert analytics_db.execute(f"select count(*) from analytics.{table}").fetchone() == (1,)


@pytest.mark.parametrize(("dag_id", "poison"), POISON.items(), ids=POISON)
def test_organization_that_cannot_be_computed_is_named_after_the_others_are_stored(
    dag_bag: DagBag, analytics_db: psycopg.Connection, dag_id: str, poison: tuple[str, str, str]
) -> None:
    task: Any
    (task,) = dag_bag.dags[dag_id].tasks
    arrange, table, error = poison
    day = datetime.now(UTC).replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0)
    bad, good, also_good = (str(UUID(int=number)) for number in (2, 1, 3))
    analytics_db.execute(arrange.format(poison=bad, good=good, also_good=also_good, day=day, overflow=OVERFLOW))

    with pytest.raises(PermanentError, match=rf"refused 1 of the groups .*'{bad}' \(cannot be computed\): {error}"):
        run(task, day, day + timedelta(days=1))

    rows = analytics_db.execute(f"select organization_id::text from analytics.{table} order by 1").fetchall()
    assert rows == [(good,), (also_good,)]
