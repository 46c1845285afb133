"""The transfer from Analytics Engine to PostgreSQL: constant memory, every type, one transaction.

``tests/dags/test_click_rollups.py`` tests it with a DAG.
"""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from inspect import signature
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG

from aggregator.analytics_engine.operators import AnalyticsEngineToPostgresOperator
from aggregator.core.errors import PermanentError
from aggregator.core.timetable import OffsetCronTimetable
from aggregator.postgres.operators import SqlUpsertOperator
from dev.bench.transfer import OPERATOR, measure
from dev.stand_in.faults import Fault
from tests.airflow_context import context

if TYPE_CHECKING:
    import psycopg

    from dev.analytics_engine.client import AnalyticsEngineControl
    from dev.postgres import Postgres

pytestmark = pytest.mark.slow  # the stand-in takes seconds to start

GROWTH_ALLOWED_KIB = 40 * 1024
YESTERDAY = datetime.combine(datetime.now(UTC).date() - timedelta(days=1), datetime.min.time(), UTC)


@pytest.fixture(autouse=True)
def connections(monkeypatch: pytest.MonkeyPatch, database_url: str, analytics_engine: AnalyticsEngineControl) -> None:
    host, port = analytics_engine.url.rsplit(":", 1)
    account = {"conn_type": "http", "host": host, "port": int(port), "password": "t", "extra": {"account_id": "a"}}
    monkeypatch.setenv("AIRFLOW_CONN_ANALYTICS_ENGINE", json.dumps(account))
    monkeypatch.setenv("AIRFLOW_CONN_BENCH_DB", database_url)


def run(**different: Any) -> dict[str, Any]:
    with DAG("bench", schedule=OffsetCronTimetable("0 0 * * *", offset=timedelta(hours=1))):
        task = AnalyticsEngineToPostgresOperator(
            task_id="transfer", postgres_conn_id="bench_db", **{**OPERATOR, **different}
        )
    counts: dict[str, Any] = task.execute(context(task, YESTERDAY, YESTERDAY + timedelta(days=1)))
    return counts


def test_upserting_operators_touch_no_column_by_default() -> None:
    defaults = [
        signature(operator).parameters["touch"].default
        for operator in (SqlUpsertOperator, AnalyticsEngineToPostgresOperator)
    ]
    assert defaults == [(), ()]


def test_isolate_by_outside_the_key_is_refused() -> None:
    with pytest.raises(ValueError, match="to a column of `key`"):
        AnalyticsEngineToPostgresOperator(
            task_id="t",
            postgres_conn_id="bench_db",
            isolate_by="n",
            **OPERATOR,  # type: ignore[arg-type]
        )


def test_memory_does_not_grow_with_the_result(postgres: Postgres, analytics_engine: AnalyticsEngineControl) -> None:
    small, large = (measure(postgres, analytics_engine, size) for size in (1_000, 200_000))
    assert (small["inserted"], large["inserted"]) == (1_000, 200_000)
    # 200,000 rows of this result are 30 MB of JSON, and more than 100 MB as Python objects.
    assert large["after"] - small["after"] < GROWTH_ALLOWED_KIB


TYPES = {
    "Int8": (-5, -5),
    "UInt8": (200, 200),
    "Int64": ("-9223372036854775808", -9223372036854775808),
    "UInt64": ("18446744073709551615", Decimal(18446744073709551615)),
    "Float64": (0.5, 0.5),
    "String": ("text", "text"),
    "DateTime": ("2026-02-28 23:59:59", datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC)),
    "DateTime('UTC')": ("2026-02-28 23:59:59", datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC)),
    "Date": ("2024-02-29", date(2024, 2, 29)),
    "Bool": (True, True),
    "Decimal(10, 2)": ("1.25", Decimal("1.25")),
    "Nullable(String)": (None, None),
    "LowCardinality(Nullable(Float64))": (1.5, 1.5),
    "Nullable(DateTime('UTC'))": ("2026-01-01 00:00:00", datetime(2026, 1, 1, tzinfo=UTC)),
}


@pytest.mark.parametrize(("type_", "sent", "expected"), [(name, *pair) for name, pair in TYPES.items()], ids=TYPES)
def test_value_of_every_type_is_stored_unchanged(
    connection: psycopg.Connection, analytics_engine: AnalyticsEngineControl, type_: str, sent: Any, expected: Any
) -> None:
    connection.execute("set timezone = 'UTC'")
    connection.execute("create table public.seen (id int primary key, value jsonb)")
    result = {
        "meta": [{"name": "value", "type": type_}, {"name": "n", "type": "UInt8"}],
        "data": [{"value": sent, "n": 1}],
        "rows": 1,
    }
    analytics_engine.faults([Fault(status=200, body=json.dumps(result))])
    run(
        table="public.seen",
        key=["id"],
        stored="select 0",
        select="select 1 as id, jsonb_build_object('v', value, 'type', pg_typeof(value)) as value "
        "from pg_temp.analytics_engine_answer",
    )
    ((type_of_value,),) = connection.execute("select value ->> 'type' from seen").fetchall()
    ((value,),) = connection.execute(f"select (value ->> 'v')::{type_of_value} from seen").fetchall()
    assert value == expected


def test_column_name_with_sql_is_quoted(
    connection: psycopg.Connection, analytics_engine: AnalyticsEngineControl
) -> None:
    connection.execute("create table public.totals (name text primary key, n bigint)")
    odd = 'n"; drop table public.totals; --'
    result = {"meta": [{"name": odd, "type": "UInt8"}], "data": [{odd: 1}], "rows": 1}
    analytics_engine.faults([Fault(status=200, body=json.dumps(result))])
    assert run(select="select 'a' as name, 1 as n from pg_temp.analytics_engine_answer")["inserted"] == 1


def test_failing_select_stores_nothing_and_shows_no_value(
    connection: psycopg.Connection, analytics_engine: AnalyticsEngineControl
) -> None:
    connection.execute("create table public.totals (name text primary key, n bigint)")
    analytics_engine.write("bench", [{"timestamp": f"{YESTERDAY:%Y-%m-%d} 12:00:00", "blob1": "private-value"}])
    with pytest.raises(PermanentError) as caught:
        run(select="select name, name::bigint as n from pg_temp.analytics_engine_answer")
    assert "22P02" in str(caught.value)
    assert "private-value" not in repr(caught.value)
    assert connection.execute("select count(*) from public.totals").fetchone() == (0,)


def test_only_queries_are_templates() -> None:
    assert set(AnalyticsEngineToPostgresOperator.template_fields) == {"sql", "select", "stored", "skipped"}
    assert set(AnalyticsEngineToPostgresOperator.template_ext) == {".sql"}
