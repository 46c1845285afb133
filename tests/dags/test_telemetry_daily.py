"""Telemetry rollups compared with an independent engine, and the state that a refused event type leaves."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from aggregator.core.errors import PermanentError, TransientError
from dev.sample.load import load_telemetry
from tests.airflow_context import context
from tests.oracles import telemetry_of

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

    from airflow.dag_processing.dagbag import DagBag

DAY = date(2026, 11, 15)
USERS = ["00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000b", None]
MIDNIGHT = datetime(2026, 11, 15, tzinfo=UTC)

Row = dict[str, Any]


@pytest.fixture
def task(dag_bag: DagBag) -> Any:
    return dag_bag.dags["telemetry_daily"].get_task("roll_up_telemetry")


@pytest.fixture(autouse=True)
def telemetry_db(migrated: Callable[..., psycopg.Connection]) -> None:
    migrated("telemetry")


class FailedError(Exception):
    """Error text and XCom of a failed task."""


def run(task: Any, day: date = DAY, /, **params: Any) -> dict[str, Any]:
    """Run one try of the task, for one day or the range in its params."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    given = context(task, start, start + timedelta(days=1))
    given["params"] = {"startDate": None, "endDate": None, "dryRun": False, **params}
    pushed: dict[str, Any] = {}
    given["ti"].xcom_push = pushed.__setitem__
    try:
        result: dict[str, Any] = task.execute(given)
    except PermanentError as error:
        error.add_note(repr(pushed))
        raise FailedError(str(error), pushed.get("return_value")) from error
    return result


def write(connection: psycopg.Connection, rows: Iterable[Row]) -> None:
    for row in rows:
        values = {**row, "meta": None if row["meta"] is ... else Jsonb(row["meta"])}
        connection.execute(
            "insert into public.telemetry (id, user_id, event, value, meta, created_at) "
            "values (%(id)s, %(user_id)s, %(event)s, %(value)s, %(meta)s, %(created_at)s)",
            values,
        )


def event(name: str = "click", id_: int = 1, time: datetime = MIDNIGHT, **other: Any) -> Row:
    return {"id": id_, "user_id": None, "event": name, "value": None, "meta": ..., "created_at": time, **other}


def everything(connection: psycopg.Connection) -> list[Row]:
    cursor = connection.execute("select id, user_id::text, event, value, meta, created_at from public.telemetry")
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def stored(
    connection: psycopg.Connection, columns: str = "date, event, count, unique_users, value_sum, meta"
) -> list[Any]:
    return connection.execute(
        f'select {columns} from public.telemetry_daily order by date, event collate "C"'
    ).fetchall()


@pytest.mark.slow
def test_day_equals_an_independent_engine_and_a_second_run_rewrites_nothing(
    task: Any, connection: psycopg.Connection, database_url: str
) -> None:
    with psycopg.connect(database_url) as products:
        load_telemetry(products, [DAY - timedelta(days=1), DAY, DAY + timedelta(days=1)])
    expected = [row for row in telemetry_of(everything(connection)) if row[0] == DAY]

    result = run(task)

    assert stored(connection) == expected
    assert [row[:4] for row in expected] == [
        (date.fromisoformat(row["date"]), row["event"], row["count"], row["unique_users"])
        for row in sorted(result["results"], key=lambda row: row["event"].encode())
    ]
    assert (result["success"], result["processed"], result["errors"]) == (True, len(expected), [])
    versions = stored(connection, "event, xmin, xmax, ctid")
    assert run(task) == {**result, "inserted": 0, "unchanged": len(expected)}
    assert stored(connection, "event, xmin, xmax, ctid") == versions


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "x", "ä", "🦊"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=5,
)
OFFSETS = [timedelta(days=-1), timedelta(microseconds=-1), timedelta(), timedelta(hours=12), timedelta(days=1)]
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "user_id": st.sampled_from(USERS),
            "event": st.sampled_from(["a", "B", "o'clock", ""]),
            "value": st.none() | st.decimals(-3, 3, places=2),
            "meta": JSON | st.just(...),
            "created_at": st.builds(
                lambda day, offset: datetime(day.year, day.month, day.day, tzinfo=UTC) + offset,
                st.sampled_from([date(2024, 2, 29), date(2024, 3, 1), date(2025, 1, 1)]),
                st.sampled_from(OFFSETS),
            ),
        }
    ),
    max_size=12,
)


@pytest.mark.slow
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, ids=st.randoms(use_true_random=False), days=st.permutations([date(2024, 2, 29), date(2024, 3, 1)]))
def test_any_days_in_any_order_equal_an_independent_engine(
    task: Any, connection: psycopg.Connection, rows: list[Row], ids: random.Random, days: list[date]
) -> None:
    connection.execute("truncate public.telemetry, public.telemetry_daily")
    numbers = ids.sample(range(100), len(rows))
    write(connection, [{**row, "id": number} for row, number in zip(rows, numbers, strict=True)])
    expected = [row for row in telemetry_of(everything(connection)) if row[0] in days]

    for day in days:
        run(task, day)
    assert stored(connection) == expected
    versions = stored(connection, "date, event, xmin, xmax, ctid")

    range_ = {"startDate": "2024-02-29", "endDate": "2024-03-01"}
    assert run(task, **range_) == run(task, **range_, dryRun=True)
    assert stored(connection, "date, event, xmin, xmax, ctid") == versions


def test_later_fields_win_by_time_then_id_and_other_values_are_ignored(
    task: Any, connection: psycopg.Connection
) -> None:
    noon = MIDNIGHT + timedelta(hours=12)
    metas = [
        (noon, 9, {"winner": "id 9", "moment": "noon"}),
        (noon, 8, {"winner": "id 8", "nested": {"a": 1}}),
        (MIDNIGHT, 10, {"moment": "midnight", "nested": {"b": 2}, "first": None}),
        (noon, 11, ["array"]),
        (noon, 12, "text"),
        (noon, 13, None),
        (noon, 14, ...),
    ]
    write(connection, [event(id_=id_, time=time, meta=meta) for time, id_, meta in metas])
    write(connection, [event("nothing", 20, meta=7), event("empty", 21, meta={}), event("none", 22)])

    run(task)

    merged = {"winner": "id 9", "moment": "noon", "nested": {"a": 1}, "first": None}
    assert stored(connection, "event, meta") == [("click", merged), ("empty", None), ("none", None), ("nothing", None)]


def test_clear_adds_late_events(task: Any, connection: psycopg.Connection) -> None:
    write(connection, [event("a"), event("b", 2)])
    run(task)
    write(connection, [event("b", 3, MIDNIGHT + timedelta(hours=23), user_id=USERS[0])])
    run(task)
    assert stored(connection, "event, count, unique_users") == [("a", 1, 0), ("b", 2, 1)]


def test_dry_run_returns_the_same_result_and_writes_nothing(task: Any, connection: psycopg.Connection) -> None:
    write(connection, [event("a"), event("b", 2), event("c", 3, MIDNIGHT + timedelta(days=1))])
    range_ = {"startDate": "2026-11-15", "endDate": "2026-11-16"}
    preview = run(task, **range_, dryRun=True)
    assert stored(connection) == []
    assert run(task, **range_) == preview
    assert (preview["processed"], preview["inserted"]) == (3, 3)

    write(connection, [event("b", 4), event("d", 5)])
    preview = run(task, **range_, dryRun=True)
    assert [preview[name] for name in ("processed", "inserted", "updated", "unchanged")] == [4, 1, 1, 2]
    assert run(task, **range_) == preview


def test_dry_run_is_a_read_only_transaction(
    task: Any, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.execute(
        "create function public.sneaky() returns bigint language sql as "
        "'insert into public.telemetry_daily values (current_date, $$sneaky$$, 1, 1) returning 1'"
    )
    monkeypatch.setattr(
        task, "sql", "select current_date as date, '' as event, public.sneaky() as count, 0 as unique_users"
    )
    with pytest.raises(FailedError, match="25006 read_only_sql_transaction"):
        run(task, dryRun=True)
    assert stored(connection) == []


def test_leap_year_is_one_run_and_longer_ranges_are_refused_unread(
    task: Any, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(connection, [event("new year", 1, datetime(2024, 1, 1, tzinfo=UTC))])
    write(connection, [event("eve", 2, datetime(2024, 12, 31, 23, 59, 59, 999999, tzinfo=UTC))])
    assert run(task, startDate="2024-01-01", endDate="2024-12-31")["processed"] == 2

    monkeypatch.setenv("AIRFLOW_CONN_TELEMETRY_DB", "postgresql://127.0.0.1:1/nowhere")
    for wrong in (
        {"startDate": "2024-01-01", "endDate": "2025-01-01"},
        {"startDate": "2024-01-02", "endDate": "2024-01-01"},
        {"startDate": "soon"},
    ):
        with pytest.raises(FailedError, match="Nothing was read"):
            run(task, **wrong)
    with pytest.raises(TransientError):
        run(task)


REFUSE = """
create function public.refuse() returns trigger language plpgsql as
$$begin if new.event like 'evil%' then raise 'not today'; end if; return new; end$$;
create trigger refuse before insert or update on public.telemetry_daily for each row execute function public.refuse();
"""


def test_refused_event_type_is_reported_after_others_are_stored_and_a_retry_stores_it(
    task: Any, connection: psycopg.Connection, capfd: pytest.CaptureFixture[str]
) -> None:
    connection.execute(REFUSE)
    write(connection, [event("evil\nline", 1, meta={"secret": "value-in-meta"}), event("good", 2)])
    write(
        connection, [event("evil\nline", 3, MIDNIGHT + timedelta(days=1)), event("x", 4, MIDNIGHT + timedelta(days=1))]
    )
    range_ = {"startDate": "2026-11-15", "endDate": "2026-11-16"}

    with pytest.raises(FailedError, match="refused 1 of the groups") as caught:
        run(task, **range_)

    _, result = caught.value.args
    assert result == {
        "success": False,
        "processed": 2,
        "inserted": 2,
        "updated": 0,
        "unchanged": 0,
        "errors": ["'evil\\nline' (2 rows): P0001 raise_exception: not today"],
        "results": [
            {"date": "2026-11-15", "event": "good", "count": 1, "unique_users": 0},
            {"date": "2026-11-16", "event": "x", "count": 1, "unique_users": 0},
        ],
    }
    assert stored(connection, "event") == [("good",), ("x",)]
    printed = capfd.readouterr()
    assert "value-in-meta" not in f"{caught.value!r}{printed.out}{printed.err}"

    connection.execute("drop trigger refuse on public.telemetry_daily")
    assert run(task, **range_)["processed"] == 4
    assert len(stored(connection)) == 4


LARGEST = "9e131071"
"""Twice this value exceeds PostgreSQL's numeric."""


@pytest.mark.parametrize("dry_run", [False, True])
def test_overflow_of_one_event_type_is_reported_and_others_are_stored(
    task: Any, connection: psycopg.Connection, dry_run: bool
) -> None:
    poison = [event("poison", number, value=LARGEST) for number in (1, 2)]
    write(connection, [event("login", 3), *poison, event("logout", 4), event("logout", 5)])

    with pytest.raises(FailedError, match="refused 1 of the groups") as caught:
        run(task, dryRun=dry_run)

    text, result = caught.value.args
    assert ("All others are stored" in text, "all others would be stored" in text) == (not dry_run, dry_run)
    assert result == {
        "success": False,
        "processed": 2,
        "inserted": 2,
        "updated": 0,
        "unchanged": 0,
        "errors": ["'poison' (cannot be computed): 22003 numeric_value_out_of_range"],
        "results": [
            {"date": "2026-11-15", "event": "login", "count": 1, "unique_users": 0},
            {"date": "2026-11-15", "event": "logout", "count": 2, "unique_users": 0},
        ],
    }
    assert stored(connection, "event, count") == ([] if dry_run else [("login", 1), ("logout", 2)])

    connection.execute("update public.telemetry set value = 1 where event = 'poison'")
    assert run(task)["processed"] == 3


def test_all_failed_event_types_are_named(task: Any, connection: psycopg.Connection) -> None:
    connection.execute(REFUSE)
    names = [f"event {number:03}" for number in range(100)]
    write(connection, [event(name, number) for number, name in enumerate(names)])
    write(connection, [event("evil", 100)])
    for number, name in enumerate(names[7::40]):
        write(connection, [event(name, 1000 + 2 * number + twice, value=LARGEST) for twice in (0, 1)])

    with pytest.raises(FailedError, match="refused 4 of the groups") as caught:
        run(task)

    assert [error.split(" (")[0] for error in caught.value.args[1]["errors"]] == [
        "'event 007'",
        "'event 047'",
        "'event 087'",
        "'evil'",
    ]
    assert len(stored(connection)) == 97


@pytest.mark.slow
def test_too_large_meta_is_reported_and_others_are_stored(task: Any, connection: psycopg.Connection) -> None:
    # PostgreSQL limits a jsonb object to 256 MB.
    connection.execute(
        "insert into public.telemetry (event, meta, created_at) "
        "select 'poison', jsonb_build_object(n::text, repeat('x', 1000000)), %s from generate_series(1, 300) as n",
        [MIDNIGHT],
    )
    connection.execute("insert into public.telemetry (event, created_at) values ('login', %s)", [MIDNIGHT])

    with pytest.raises(FailedError) as caught:
        run(task)

    (error,) = caught.value.args[1]["errors"]
    assert error.startswith("'poison' (cannot be computed): 54000 program_limit_exceeded")
    assert stored(connection, "event, count") == [("login", 1)]


@pytest.mark.parametrize("style", ["SQL, DMY", "Postgres, MDY", "German"])
def test_dates_of_the_result_are_iso_8601_with_any_datestyle(
    task: Any, connection: psycopg.Connection, style: str
) -> None:
    connection.execute(f"alter database {connection.info.dbname} set datestyle to {style}")
    write(connection, [event("a")])
    assert run(task)["results"] == [{"date": "2026-11-15", "event": "a", "count": 1, "unique_users": 0}]


def test_days_without_events_delete_nothing(
    task: Any, connection: psycopg.Connection, capfd: pytest.CaptureFixture[str]
) -> None:
    none = dict.fromkeys(("processed", "inserted", "updated", "unchanged"), 0)
    nothing = {"success": True, **none, "errors": [], "results": []}
    assert run(task) == nothing
    assert "SUSPICIOUS" not in capfd.readouterr().out
    connection.execute("insert into public.telemetry_daily values (%s, 'a', 7, 1)", [DAY])
    assert run(task) == nothing
    assert "SUSPICIOUS" in capfd.readouterr().out
    assert stored(connection, "event, count") == [("a", 7)]


def test_result_lists_1000_rollups_and_counts_all(task: Any, connection: psycopg.Connection) -> None:
    connection.execute(
        "insert into public.telemetry (event, created_at) select n::text, %s from generate_series(1, 1200) as n",
        [MIDNIGHT],
    )
    result = run(task)
    assert (result["processed"], len(result["results"])) == (1200, 1000)


def test_events_without_a_name_are_skipped_and_product_tables_are_accepted(
    task: Any, connection: psycopg.Connection
) -> None:
    connection.execute(
        "alter table public.telemetry alter event drop not null;"
        "alter table public.telemetry_daily alter count type int, alter event type varchar(5)"
    )
    write(connection, [event("short"), event("far too long", 2), event(None, 3)])  # type: ignore[arg-type]
    with pytest.raises(FailedError, match=r"'far too long' .* 22001"):
        run(task)
    assert stored(connection, "event, count") == [("short", 1)]
