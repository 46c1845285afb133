"""The warm-up reset resets the counters of the right domains, at any time of the run."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator.core.errors import PermanentError, TransientError
from aggregator.warmup import counter_store
from aggregator.warmup.counter_store import ResetReport
from dev.sample import warmup
from tests.airflow_context import context

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg
    from airflow.dag_processing.dagbag import DagBag

ORGANIZATION = "6f1c2f0e-0000-4000-8000-000000000001"
DAY = date(2026, 11, 15)
MIDNIGHT = datetime(2026, 11, 16)
SECOND = timedelta(seconds=1)


@pytest.fixture
def task(dag_bag: DagBag) -> Any:
    return dag_bag.dags["analytics_warmup_reset"].get_task("reset_warmup_counters")


@pytest.fixture(autouse=True)
def database(monkeypatch: pytest.MonkeyPatch, migrated: Callable[..., psycopg.Connection]) -> None:
    monkeypatch.delenv("WARMUP_COUNTER_STORE", raising=False)
    migrated("analytics")


def run(task: Any, day: date = DAY) -> dict[str, int]:
    """One try of the task for a day."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    result: dict[str, int] = task.execute(context(task, start, start + timedelta(days=1)))
    return result


def arrange(connection: psycopg.Connection, domains: list[tuple[str, bool, datetime]]) -> None:
    """Store domains, and a counter of the day for each."""
    connection.execute("truncate delivery.sending_domains, delivery.warmup_counters")
    cursor = connection.cursor()
    cursor.executemany(
        "insert into delivery.sending_domains (organization_id, domain, verified, created_at) values (%s, %s, %s, %s)",
        [(ORGANIZATION, *domain) for domain in domains],
    )
    cursor.executemany(
        "insert into delivery.warmup_counters values (%s, %s, %s, 7)", [(ORGANIZATION, row[0], DAY) for row in domains]
    )


def left(connection: psycopg.Connection) -> set[str]:
    return {domain for (domain,) in connection.execute("select domain from delivery.warmup_counters")}


def test_sample_resets_only_domains_that_warm_up(task: Any, connection: psycopg.Connection) -> None:
    today = DAY + timedelta(days=1)
    domains = warmup.sending_domains(today)
    arrange(connection, [(row["domain"], row["verified"], row["created_at"]) for row in domains])

    expected = {"domains": len(warmup.WARMING), "reset": len(warmup.WARMING), "kept": 0}
    assert run(task) == expected
    assert left(connection) == {row["domain"] for row in domains} - set(warmup.WARMING)
    assert run(task) == expected | {"reset": 0}


def test_age_is_computed_at_the_end_of_the_day(task: Any, connection: psycopg.Connection) -> None:
    thirty_days = timedelta(days=30)
    arrange(
        connection,
        [
            ("30 days old", True, MIDNIGHT - thirty_days),
            ("almost", True, MIDNIGHT - thirty_days + SECOND),
            ("new", True, MIDNIGHT - SECOND),
            ("of the next day", True, MIDNIGHT),
            ("not verified", False, MIDNIGHT - SECOND),
        ],
    )
    assert run(task)["domains"] == 2
    assert left(connection) == {"30 days old", "of the next day", "not verified"}


@pytest.mark.slow
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.booleans(), st.integers(-2, 33 * 86400)), max_size=12))
def test_any_domains_equal_the_result_of_duckdb(task: Any, connection: psycopg.Connection, given_domains: Any) -> None:
    domains = [
        (f"{number}.example", verified, MIDNIGHT - timedelta(seconds=age))
        for number, (verified, age) in enumerate(given_domains)
    ]
    arrange(connection, domains)

    result = run(task)

    schema = pa.schema({"domain": pa.string(), "verified": pa.bool_(), "created_at": pa.timestamp("us")})
    rows = [dict(zip(schema.names, row, strict=True)) for row in domains]
    with duckdb.connect() as engine:
        engine.register("domains", pa.Table.from_pylist(rows, schema))
        warming = engine.execute(
            "select domain from domains where verified and ? - created_at < interval 30 day and created_at < ?",
            [MIDNIGHT, MIDNIGHT],
        ).fetchall()
    assert result == {"domains": len(warming), "reset": len(warming), "kept": 0}
    assert left(connection) == {row[0] for row in domains} - {domain for (domain,) in warming}


def test_run_cleared_a_month_later_keeps_current_counters(task: Any, connection: psycopg.Connection) -> None:
    arrange(connection, [("young.example", True, MIDNIGHT - timedelta(days=3))])
    run(task)
    connection.execute(
        "insert into delivery.warmup_counters values (%s, 'young.example', '2026-12-16', 5)", [ORGANIZATION]
    )

    assert run(task) == {"domains": 1, "reset": 0, "kept": 1}
    assert left(connection) == {"young.example"}


def test_products_table_is_used_in_any_time_zone(task: Any, connection: psycopg.Connection) -> None:
    connection.execute(
        "alter table delivery.sending_domains alter created_at type timestamptz using created_at at time zone 'UTC'"
    )
    connection.execute(
        "insert into delivery.sending_domains (organization_id, domain, verified, created_at) "
        "values (%s, 'young', true, '2026-10-17 01:30:00+01'), (%s, 'old', true, '2026-10-17 00:30:00+01')",
        [ORGANIZATION, ORGANIZATION],
    )
    assert run(task)["domains"] == 1


@pytest.mark.parametrize(("code", "error"), [("AccessDenied", PermanentError), ("SlowDown", TransientError)])
def test_failures_of_the_r2_store_fail_the_task(
    task: Any, monkeypatch: pytest.MonkeyPatch, code: str, error: type[Exception]
) -> None:
    monkeypatch.setenv("WARMUP_COUNTER_STORE", "r2")

    class Refusing:
        def reset_daily_counters(self, domains: Any, before: Any) -> ResetReport:
            assert before == datetime(2026, 11, 16, tzinfo=UTC)
            return ResetReport(reset=9, failed={code: 3})

    monkeypatch.setattr(counter_store, "S3CounterStore", Refusing)
    with pytest.raises(error, match=f"3 warm-up counters could not be reset: {code} for 3. 9 others were"):
        run(task)


def test_unknown_store_is_rejected_before_any_reset(
    task: Any, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARMUP_COUNTER_STORE", "redis")
    arrange(connection, [("young.example", True, MIDNIGHT - SECOND)])
    with pytest.raises(PermanentError, match="WARMUP_COUNTER_STORE"):
        run(task)
    assert left(connection) == {"young.example"}
