"""SqlUpsertOperator: sources, templates, dry runs, isolation of groups, logs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG, BaseOperator, XComArg

from aggregator.core.errors import PermanentError
from aggregator.core.timetable import OffsetCronTimetable
from aggregator.postgres.operators import SqlUpsertOperator
from tests.airflow_context import context

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg

START, END = datetime(2026, 11, 15, tzinfo=UTC), datetime(2026, 11, 16, tzinfo=UTC)
HOSTILE = "{{ 1 / 0 }} {% raise %} '; drop table public.rollups; --"
TARGET: dict[str, Any] = {
    "conn_id": "test_db",
    "table": "public.rollups",
    "key": ["day", "hire"],
    "touch": ["updated_at"],
}
INSERTED = {"inserted": 1, "updated": 0, "unchanged": 0, "duplicates": 0}


@pytest.fixture(autouse=True)
def rollups(database_url: str, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_TEST_DB", database_url)
    connection.execute(
        "create table public.rollups "
        "(day date, hire text, valid int, updated_at timestamptz not null default now(), primary key (day, hire));"
        "create table public.clicks (at timestamptz, hire text);"
        "insert into public.clicks values ('2026-11-15', 'a'), ('2026-11-15 23:59:59.9', 'a'), ('2026-11-16', 'a')"
    )


@pytest.fixture
def dag(tmp_path: Path) -> DAG:
    (tmp_path / "rollups.sql").write_text(
        "-- Called by the test. Returns one row per hire.\n"
        "select %(data_interval_start)s::date as day, hire, count(*) * %(factor)s as valid\n"
        "from public.clicks\n"
        "where at >= %(data_interval_start)s and at < %(data_interval_end)s and hire not like '50 %%'\n"
        "group by hire;\n"
    )
    return DAG(
        "test_rollups",
        schedule=OffsetCronTimetable("0 0 * * *", offset=timedelta(hours=1)),
        template_searchpath=[str(tmp_path)],
    )


def run(task: SqlUpsertOperator, **results: Any) -> dict[str, Any]:
    given = context(task, START, END, **results)
    task.render_template_fields(given)
    return task.execute(given)


def test_query_file_is_run_with_the_window_bound(dag: DAG, connection: psycopg.Connection) -> None:
    task = SqlUpsertOperator(task_id="t", dag=dag, sql="rollups.sql", parameters={"factor": 10}, **TARGET)
    task.resolve_template_files()
    assert run(task) == INSERTED
    assert run(task) == {"inserted": 0, "updated": 0, "unchanged": 1, "duplicates": 0}
    assert connection.execute("select day::text, hire, valid from public.rollups").fetchall() == [
        ("2026-11-15", "a", 20)
    ]


def test_empty_window_with_stored_rows_is_suspicious(
    dag: DAG, connection: psycopg.Connection, capfd: pytest.CaptureFixture[str]
) -> None:
    stored = "select count(*) from public.rollups where day = %(data_interval_start)s::date"
    query = "select day, hire from public.rollups where false"
    task = SqlUpsertOperator(task_id="t", dag=dag, sql=query, stored=stored, **TARGET)
    dry = SqlUpsertOperator(task_id="d", dag=dag, sql=query, stored=stored, dry_run=True, **TARGET)
    isolated = SqlUpsertOperator(task_id="i", dag=dag, sql=query, stored=stored, isolate_by="hire", **TARGET)
    assert [run(task)["suspicious"] for task in (task, dry, isolated)] == [False, False, False]
    connection.execute("insert into public.rollups values ('2026-11-14', 'a', 1), ('2026-11-15', 'b', 1)")
    assert [run(task)["suspicious"] for task in (task, dry, isolated)] == [True, True, True]
    out = capfd.readouterr().out
    assert "SUSPICIOUS: the source is empty, but rows are stored" in out
    assert "source='query' table=public.rollups stored=1" in out
    assert connection.execute("select hire from public.rollups order by 1").fetchall() == [("a",), ("b",)]


def test_rows_of_a_previous_task_are_neither_rendered_nor_shown(dag: DAG, connection: psycopg.Connection) -> None:
    previous = BaseOperator(task_id="previous", dag=dag)
    task = SqlUpsertOperator(task_id="t", dag=dag, rows=XComArg(previous), **TARGET)
    assert task.upstream_task_ids == {"previous"}
    assert "rows" not in task.template_fields
    assert run(task, previous=[{"day": "2026-11-15", "hire": HOSTILE, "valid": "7"}]) == INSERTED
    assert connection.execute("select hire, valid from public.rollups").fetchall() == [(HOSTILE, 7)]


def test_columns_apply_to_sequences_and_select_from_mappings(dag: DAG, connection: psycopg.Connection) -> None:
    columns = ["day", "hire"]
    lists = SqlUpsertOperator(task_id="a", dag=dag, columns=columns, rows=[["2026-11-15", "a"]], **TARGET)
    assert run(lists) == INSERTED
    some = SqlUpsertOperator(
        task_id="b", dag=dag, columns=columns, rows=[{"hire": "b", "day": "2026-11-15", "note": 1}], **TARGET
    )
    assert run(some) == INSERTED
    assert connection.execute("select hire from public.rollups order by 1").fetchall() == [("a",), ("b",)]


def test_no_rows_return_zero_counts(dag: DAG) -> None:
    nothing = {"inserted": 0, "updated": 0, "unchanged": 0, "duplicates": 0}
    assert run(SqlUpsertOperator(task_id="a", dag=dag, rows=[], **TARGET)) == nothing
    assert run(SqlUpsertOperator(task_id="b", dag=dag, rows=[], columns=["day", "hire"], **TARGET)) == nothing
    dry = SqlUpsertOperator(task_id="c", dag=dag, rows=[], dry_run=True, **TARGET)
    assert run(dry) == {**nothing, "preview": [], "dry_run": True}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (None, "NoneType, not a list of rows"),
        ("rows", "str, not a list of rows"),
        ({"day": "2026-11-15"}, "dict, not a list of rows"),
        ([["2026-11-15", "a"]], "do not name their columns"),
        ([{"day": "2026-11-15", "hire": "a"}, {"day": "2026-11-15"}], "Row 2 .* has no hire"),
        ([{"day": "2026-11-15", "hire": "a"}, {"day": "2026-11-15", "hire": "a", "valid": 1}], "Row 2 .* has columns"),
        ([{"day": "2026-11-15", "hire": "a"}, "b"], "Row 2 .* is a str"),
        ([{"day": "someday", "hire": "a"}], "Row 1 .* column day is date"),
    ],
)
def test_rows_of_the_wrong_shape_are_refused(rows: object, says: str, dag: DAG, connection: psycopg.Connection) -> None:
    previous = BaseOperator(task_id="previous", dag=dag)
    task = SqlUpsertOperator(task_id="t", dag=dag, rows=XComArg(previous), **TARGET)
    with pytest.raises(PermanentError, match=says):
        run(task, previous=rows)
    assert connection.execute("select from public.rollups").fetchall() == []


@pytest.mark.parametrize("sources", [{}, {"sql": "select 1", "rows": []}])
def test_exactly_one_source_is_required(sources: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="exactly one of `sql` and `rows`"):
        SqlUpsertOperator(task_id="t", **sources, **TARGET)


@pytest.mark.parametrize("source", ["sql", "rows"])
def test_dry_run_returns_the_preview_and_logs_no_value(
    source: str, dag: DAG, connection: psycopg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    given: dict[str, Any] = {"rows": [{"day": "2026-11-15", "hire": "marker", "valid": 2}]}
    if source == "sql":
        given = {"sql": "select '2026-11-15'::date as day, 'marker' as hire, 2 as valid"}
    task = SqlUpsertOperator(task_id="t", dag=dag, dry_run=True, **given, **TARGET)
    result = run(task)
    logged = capsys.readouterr().out
    row = {"day": "2026-11-15", "hire": "marker", "valid": "2"}
    assert result == {**INSERTED, "preview": [{"action": "insert", "row": row}], "dry_run": True}
    assert connection.execute("select from public.rollups").fetchall() == []
    assert "Dry run, nothing was written: table=public.rollups inserted=1" in logged
    assert "marker" not in logged


def test_counts_are_logged_and_values_are_not(dag: DAG, capsys: pytest.CaptureFixture[str]) -> None:
    task = SqlUpsertOperator(task_id="t", dag=dag, rows=[{"day": "2026-11-15", "hire": "marker", "valid": 2}], **TARGET)
    run(task)
    logged = capsys.readouterr().out
    assert "Upserted: table=public.rollups" in logged
    assert "inserted=1" in logged
    assert "marker" not in logged


def test_refused_groups_are_named_after_the_rest_is_stored(
    dag: DAG, connection: psycopg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    connection.execute("alter table public.rollups add constraint positive check (valid > 0)")
    query = (
        "select %(data_interval_start)s::date as day, hire, valid "
        "from (values ('good', 7), (e'for\\nged', -12345), (repeat('long', 100), -1)) as source (hire, valid)"
    )
    task = SqlUpsertOperator(task_id="t", dag=dag, sql=query, isolate_by="hire", **TARGET)

    with pytest.raises(PermanentError) as caught:
        run(task)

    text = str(caught.value)
    assert "refused 2 of the groups of public.rollups by hire: 'for\\nged' (1 rows): 23514 check_violation" in text
    assert "constraint positive" in text
    assert "inserted=1" in text
    assert "long" * 21 not in text
    assert "-12345" not in text + capsys.readouterr().out
    assert connection.execute("select hire, valid from public.rollups").fetchall() == [("good", 7)]

    connection.execute("alter table public.rollups drop constraint positive")
    assert run(task) == {"inserted": 2, "updated": 0, "unchanged": 1, "duplicates": 0}


def test_error_names_twenty_groups_and_counts_the_others(dag: DAG, connection: psycopg.Connection) -> None:
    connection.execute("alter table public.rollups add check (false)")
    query = "select current_date as day, 'hire ' || n as hire, n as valid from generate_series(1, 23) as n"
    with pytest.raises(PermanentError, match=r"; and 3 more\. All others are stored"):
        run(SqlUpsertOperator(task_id="t", dag=dag, sql=query, isolate_by="hire", **TARGET))


def test_groups_need_a_column_to_isolate_them_by() -> None:
    with pytest.raises(ValueError, match="Add `isolate_by`"):
        SqlUpsertOperator(task_id="t", sql="select 1", groups="select 1", **TARGET)


@pytest.mark.parametrize("dry_run", [False, True])
def test_group_that_cannot_be_computed_is_named_after_the_rest_is_stored(
    dag: DAG, connection: psycopg.Connection, dry_run: bool
) -> None:
    connection.execute(
        "create table public.source (hire text, n int);"
        "insert into public.source values ('a', 1), ('b', 0), ('c', 2), ('d', -1), ('e', 3)"
    )
    connection.execute("alter table public.rollups alter valid type smallint")
    query = (
        "select %(data_interval_start)s::date as day, hire, case when hire = 'e' then 99999 else 6 / n end as valid "
        "from public.source where %(groups)s::text[] is null or hire = any(%(groups)s::text[])"
    )
    task = SqlUpsertOperator(
        task_id="t", dag=dag, sql=query, groups="select hire from public.source order by 1", isolate_by="hire",
        dry_run=dry_run, **TARGET
    )  # fmt: skip

    with pytest.raises(PermanentError) as caught:
        run(task)

    text = str(caught.value)
    assert "refused 2 of the groups" in text
    assert "'b' (cannot be computed): 22012 division_by_zero; 'e' (1 rows): 22003" in text
    assert "inserted=3" in text
    assert ("Nothing was written in this dry run" in text) == dry_run
    hires = [hire for (hire,) in connection.execute("select hire from public.rollups order by 1")]
    assert hires == ([] if dry_run else ["a", "c", "d"])


def test_query_that_cannot_be_computed_without_groups_stores_nothing(dag: DAG, connection: psycopg.Connection) -> None:
    query = "select current_date as day, n::text as hire, 6 / n as valid from generate_series(0, 3) as n"
    with pytest.raises(PermanentError, match="22012 division_by_zero"):
        run(SqlUpsertOperator(task_id="t", dag=dag, sql=query, isolate_by="hire", **TARGET))
    assert connection.execute("select from public.rollups").fetchall() == []


@pytest.mark.parametrize("given", [{"rows": [], "isolate_by": "hire"}, {"sql": "select 1", "isolate_by": "valid"}])
def test_isolation_needs_a_query_and_a_key(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="isolate rows of `sql` only, and by a column of `key` only"):
        SqlUpsertOperator(task_id="t", **given, **TARGET)
