"""Migrations of an analytics database without tables, without keys, with duplicate rows and with keys."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator.postgres.migrations import Report, migrate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

KEYS = {
    "analytics.event_aggregates": "organization_id, date, event_type, channel",
    "analytics.campaign_daily_stats": "campaign_id, organization_id, date",
    "analytics.daily_score_distribution": "organization_id, date",
    "analytics.enrichment_metrics": "organization_id, date",
}
WITHOUT_KEYS = """
create schema analytics;
create table analytics.event_aggregates (
    id bigint generated always as identity primary key, organization_id uuid, date date, event_type varchar(100),
    channel varchar(50), count integer, unique_count integer, created_at timestamp default now()
);
create table analytics.campaign_daily_stats (
    id bigint generated always as identity primary key, campaign_id uuid, organization_id uuid, date date, sent integer,
    delivered integer, opened integer, unique_opened integer, clicked integer, unique_clicked integer, bounced integer,
    complained integer, unsubscribed integer
);
create table analytics.daily_score_distribution (
    id bigint generated always as identity primary key, organization_id uuid, date date, avg_score numeric(5, 2),
    min_score integer, max_score integer, p50 integer, p90 integer, p95 integer, total_contacts integer
);
create table analytics.enrichment_metrics (
    id bigint generated always as identity primary key, organization_id uuid, date date, total_enriched integer,
    success_rate numeric(5, 2), avg_cost numeric(8, 4), avg_freshness numeric(5, 2)
);
"""
ORG = "00000000-0000-0000-0000-00000000000a"
DAY = "2026-11-15"

Rows = list[tuple[Any, ...]]


@pytest.fixture
def apply(database_url: str) -> Callable[[], Report]:
    return partial(migrate, partial(psycopg.connect, database_url), "analytics")


@pytest.fixture
def without_keys(connection: psycopg.Connection) -> psycopg.Connection:
    connection.execute(WITHOUT_KEYS)
    return connection


def insert(connection: psycopg.Connection, table: str, columns: str, rows: Iterable[tuple[Any, ...]]) -> None:
    marks = ", ".join("%s" for _ in columns.split(","))
    connection.cursor().executemany(f"insert into {table} ({columns}) values ({marks})", list(rows))


def ids(connection: psycopg.Connection, table: str) -> list[int]:
    return [row[0] for row in connection.execute(f"select id from {table} order by id")]


def merged(connection: psycopg.Connection, table: str) -> list[int]:
    query = "select (stored ->> 'id')::int from migrations.analytics_merged_rows where table_name = %s order by 1"
    return [row[0] for row in connection.execute(query, [table])]


def indexes(connection: psycopg.Connection) -> Rows:
    return connection.execute(
        "select tablename, indexdef from pg_indexes where schemaname in ('analytics', 'lead_intelligence', 'scoring')"
    ).fetchall()


def test_new_database_has_the_keys(apply: Any, connection: psycopg.Connection) -> None:
    assert apply().notices == []
    found = " ".join(definition for _, definition in indexes(connection))
    for table, columns in KEYS.items():
        assert f"ON {table} USING btree ({columns}) NULLS NOT DISTINCT" in found
    assert "ON analytics.contact_activity USING btree (created_at)" in found
    assert "ON lead_intelligence.enrichment_jobs USING btree (created_at)" in found


def test_greatest_count_of_a_replayed_day_is_kept(apply: Any, without_keys: Any) -> None:
    table = "analytics.event_aggregates"
    insert(
        without_keys,
        table,
        "organization_id, date, event_type, channel, count, unique_count",
        [
            (ORG, DAY, "a", None, 5, 2),
            (ORG, DAY, "a", None, 9, 3),
            (ORG, DAY, "a", None, 9, 3),
            (ORG, DAY, "a", None, None, None),
            (ORG, DAY, "a", "email", 1, 1),
            (ORG, DAY, "b", None, 1, 1),
            (None, None, None, None, 1, 1),
            (None, None, None, None, 1, 1),
        ],
    )
    assert apply().notices == [f"4 duplicates of {table} were moved to migrations.analytics_merged_rows"]
    assert ids(without_keys, table) == [3, 5, 6, 8]
    assert merged(without_keys, table) == [1, 2, 4, 7]
    assert apply().notices == []


def test_campaign_row_with_the_most_events_is_kept(apply: Any, without_keys: Any) -> None:
    table = "analytics.campaign_daily_stats"
    columns = "campaign_id, organization_id, date, sent, delivered, opened"
    insert(
        without_keys, table, columns, [(ORG, ORG, DAY, 5, 4, 3), (ORG, ORG, DAY, 5, 5, None), (ORG, ORG, DAY, 5, 5, 1)]
    )
    apply()
    assert (ids(without_keys, table), merged(without_keys, table)) == ([1], [2, 3])


def test_first_snapshot_of_a_day_is_kept(apply: Any, without_keys: Any) -> None:
    table = "analytics.daily_score_distribution"
    columns = "organization_id, date, total_contacts"
    insert(without_keys, table, columns, [(ORG, DAY, 4), (ORG, DAY, 900), (ORG, "2026-11-16", 5)])
    apply()
    assert (ids(without_keys, table), merged(without_keys, table)) == ([1, 3], [2])


def test_enrichment_row_with_the_most_jobs_is_kept(apply: Any, without_keys: Any) -> None:
    table = "analytics.enrichment_metrics"
    columns = "organization_id, date, total_enriched, success_rate"
    insert(without_keys, table, columns, [(ORG, DAY, 4, 50), (ORG, DAY, 4, 80), (ORG, DAY, 3, 100)])
    apply()
    assert (ids(without_keys, table), merged(without_keys, table)) == ([2], [1, 3])


@pytest.mark.slow
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([None, "", "email"]), st.integers(0, 3)), max_size=30))
def test_every_row_is_either_kept_or_in_the_archive(apply: Any, connection: psycopg.Connection, replayed: Any) -> None:
    connection.execute("drop schema if exists analytics, scoring, lead_intelligence, migrations cascade")
    connection.execute(WITHOUT_KEYS)
    table = "analytics.event_aggregates"
    columns = "organization_id, date, event_type, channel, count"
    insert(connection, table, columns, [(ORG, DAY, type_, channel, n) for type_, channel, n in replayed])
    before = connection.execute(f"select to_jsonb(stored)::text from {table} as stored").fetchall()

    apply()

    kept = connection.execute(f"select to_jsonb(stored)::text from {table} as stored").fetchall()
    archived = connection.execute("select stored::text from migrations.analytics_merged_rows").fetchall()
    assert Counter(kept) + Counter(archived) == Counter(before)
    assert len(kept) == len({(type_, channel) for type_, channel, _ in replayed})


def test_key_that_allows_duplicate_null_channels_is_replaced(apply: Any, without_keys: Any) -> None:
    table = "analytics.event_aggregates"
    without_keys.execute(f"alter table {table} add unique (organization_id, date, event_type, channel)")
    columns = "organization_id, date, event_type, channel, count"
    insert(without_keys, table, columns, [(ORG, DAY, "a", None, 5), (ORG, DAY, "a", None, 6)])
    apply()
    assert ids(without_keys, table) == [2]


def test_database_with_all_keys_is_not_changed(apply: Any, without_keys: Any) -> None:
    without_keys.execute("""
        create unique index on analytics.event_aggregates (channel, date, event_type, organization_id)
            nulls not distinct;
        alter table analytics.campaign_daily_stats
            alter campaign_id set not null, alter organization_id set not null, alter date set not null,
            add unique (date, organization_id, campaign_id);
        create unique index on analytics.daily_score_distribution (date, organization_id) nulls not distinct;
        create unique index on analytics.enrichment_metrics (date, organization_id) nulls not distinct;
        create table analytics.contact_activity (organization_id uuid, created_at timestamp);
        create index on analytics.contact_activity (created_at, organization_id);
        create schema lead_intelligence;
        create table lead_intelligence.enrichment_jobs (organization_id uuid, created_at timestamp);
        create index on lead_intelligence.enrichment_jobs using brin (created_at);
    """)
    before = {row for row in indexes(without_keys) if row[0] != "lead_scores"}
    apply()
    ours = {"lead_scores", "history", "functions", "analytics"}
    assert {row for row in indexes(without_keys) if row[0] not in ours and not row[0].startswith("pg_")} == before


def test_partial_or_longer_index_does_not_count_as_key(apply: Any, without_keys: Any) -> None:
    table = "analytics.enrichment_metrics"
    without_keys.execute(
        f"create unique index on {table} (organization_id, date) nulls not distinct where total_enriched > 9"
    )
    without_keys.execute(f"create unique index on {table} (organization_id, date, id) nulls not distinct")
    insert(without_keys, table, "organization_id, date, total_enriched", [(ORG, DAY, 1), (ORG, DAY, 2)])
    apply()
    assert ids(without_keys, table) == [2]
