"""Events of a UTC day, from a run of any of its hours, compared with DuckDB."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.core.errors import PermanentError
from tests import analytics_data as data
from tests.analytics_data import CONTACTS, ORGANIZATIONS, examples, run, run_twice, store
from tests.oracles import event_aggregates_of

if TYPE_CHECKING:
    import psycopg
    from airflow.dag_processing.dagbag import DagBag

ACTIVITY = "analytics.contact_activity"
WRITTEN = "analytics.event_aggregates"
HOUR = timedelta(hours=1)
DAY = datetime(2024, 2, 29)
DAYS = [DAY, datetime(2026, 1, 1), datetime(2025, 12, 31)]

Rows = list[tuple[Any, ...]]


@pytest.fixture
def task(dag_bag: DagBag) -> Any:
    return dag_bag.dags["analytics_hourly_aggregation"].get_task("aggregate_events")


def stored(connection: psycopg.Connection, day: datetime) -> Rows:
    query = f"""
        select organization_id::text, event_type, count, unique_count from {WRITTEN}
        where date = %s and channel is null order by organization_id, event_type collate "C"
    """
    return connection.execute(query, [day]).fetchall()


def everything(connection: psycopg.Connection) -> Rows:
    query = f'select *, xmin from {WRITTEN} order by organization_id, date, event_type collate "C"'
    return connection.execute(query).fetchall()


def event(timestamp: datetime, **other: Any) -> dict[str, Any]:
    return {
        "organization_id": ORGANIZATIONS[0],
        "contact_id": CONTACTS[1],
        "event_type": "page_view",
        "event_source": None,
        "created_at": timestamp,
        **other,
    }


@pytest.mark.slow
@examples
@given(st.data())
def test_any_hour_sets_its_day_to_the_result_of_duckdb(task: Any, analytics_db: psycopg.Connection, drawn: Any) -> None:
    day = drawn.draw(st.sampled_from(DAYS))
    rows = drawn.draw(data.activity(day, day + timedelta(days=1)))
    hour = day + drawn.draw(st.sampled_from([0, 1, 12, 23])) * HOUR
    data.replace(analytics_db, ACTIVITY, rows, WRITTEN)

    run_twice(task, hour, hour + HOUR)

    assert stored(analytics_db, day) == event_aggregates_of(rows, day)
    assert {row[1] for row in analytics_db.execute(f"select * from {WRITTEN}")} <= {day.date()}


@pytest.mark.slow
@examples
@given(data.activity(DAY, DAY + timedelta(days=1)), st.permutations([-24, -1, 0, 5, 23, 24]))
def test_hours_in_any_order_give_the_same_tables(
    task: Any, analytics_db: psycopg.Connection, rows: Any, hours: Any
) -> None:
    data.replace(analytics_db, ACTIVITY, rows, WRITTEN)
    for hour in hours:
        run(task, DAY + hour * HOUR, DAY + (hour + 1) * HOUR)
    for day in (DAY - timedelta(days=1), DAY, DAY + timedelta(days=1)):
        assert stored(analytics_db, day) == event_aggregates_of(rows, day)


def test_window_across_midnight_sets_both_days(task: Any, analytics_db: psycopg.Connection) -> None:
    store(analytics_db, ACTIVITY, [event(DAY - HOUR), event(DAY), event(DAY + 23 * HOUR), event(DAY + 24 * HOUR)])
    run(task, DAY - HOUR / 2, DAY + HOUR / 2)
    counts = [stored(analytics_db, DAY + timedelta(days=age)) for age in (-1, 0, 1)]
    assert counts == [[(ORGANIZATIONS[0], "page_view", n, 1)] if n else [] for n in (1, 2, 0)]


def test_late_events_are_counted_by_a_cleared_run_and_nothing_else_is_rewritten(
    task: Any, analytics_db: psycopg.Connection
) -> None:
    store(analytics_db, ACTIVITY, [event(DAY), event(DAY, event_type="signup")])
    run(task, DAY, DAY + HOUR)
    page_view, signup = everything(analytics_db)

    store(analytics_db, ACTIVITY, [event(DAY + 13 * HOUR, contact_id=CONTACTS[2])])
    result = run(task, DAY, DAY + HOUR)

    assert (result["updated"], result["unchanged"]) == (1, 1)
    assert stored(analytics_db, DAY)[0] == (ORGANIZATIONS[0], "page_view", 2, 2)
    assert everything(analytics_db)[1] == signup
    assert everything(analytics_db)[0] != page_view


def test_empty_source_deletes_nothing(task: Any, analytics_db: psycopg.Connection) -> None:
    store(analytics_db, ACTIVITY, [event(DAY)])
    run(task, DAY, DAY + HOUR)
    before = everything(analytics_db)
    analytics_db.execute(f"truncate {ACTIVITY}")
    assert run(task, DAY, DAY + HOUR) == {
        "inserted": 0,
        "updated": 0,
        "unchanged": 0,
        "duplicates": 0,
        "suspicious": True,
    }
    assert everything(analytics_db) == before


def test_rows_of_other_channels_are_not_changed(task: Any, analytics_db: psycopg.Connection) -> None:
    other = {"organization_id": ORGANIZATIONS[0], "date": DAY.date(), "event_type": "page_view", "channel": "email"}
    store(analytics_db, WRITTEN, [other | {"count": 7, "unique_count": 7}])
    before = everything(analytics_db)
    store(analytics_db, ACTIVITY, [event(DAY)])
    run(task, DAY, DAY + HOUR)
    assert before[0] in everything(analytics_db)


def test_events_without_organization_or_type_are_left_out(task: Any, analytics_db: psycopg.Connection) -> None:
    analytics_db.execute(f"alter table {ACTIVITY} alter organization_id drop not null, alter event_type drop not null")
    store(analytics_db, ACTIVITY, [event(DAY, organization_id=None), event(DAY, event_type=None), event(DAY)])
    assert run(task, DAY, DAY + HOUR)["inserted"] == 1


def test_refused_organization_does_not_stop_the_others(task: Any, analytics_db: psycopg.Connection) -> None:
    refused, accepted = ORGANIZATIONS
    analytics_db.execute(f"alter table {WRITTEN} add constraint picky check (organization_id <> '{refused}')")
    store(analytics_db, ACTIVITY, [event(DAY), event(DAY, organization_id=accepted)])

    with pytest.raises(PermanentError, match=refused):
        run(task, DAY, DAY + HOUR)

    assert stored(analytics_db, DAY) == [(accepted, "page_view", 1, 1)]
    analytics_db.execute(f"alter table {WRITTEN} drop constraint picky")
    result = run(task, DAY, DAY + HOUR)
    assert (result["inserted"], result["unchanged"]) == (1, 1)
