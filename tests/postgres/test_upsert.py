"""Upserts: compared with an independent model, row versions, locks, concurrency, isolation of groups."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import astuple
from datetime import date
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator.core.errors import PermanentError
from aggregator.postgres.upsert import PREVIEW_ROWS, Query, Rows, UpsertCounts, UpsertResult, UpsertSpec, upsert

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

ROLLUPS = """
create table public.rollups (
    day date, hire text, valid int not null, invalid int not null,
    created_at timestamptz not null default now(), updated_at timestamptz not null default now(),
    primary key (day, hire)
)
"""
UPSERT = UpsertSpec("public.rollups", ["day", "hire"], touch=["updated_at"])
COLUMNS = ["day", "hire", "valid", "invalid"]
DAY = date(2026, 11, 15)


def rollups(*rows: tuple[str, int, int]) -> list[tuple[date, str, int, int]]:
    return [(DAY, *row) for row in rows]


def stored(connection: psycopg.Connection, columns: str = "*", table: str = "public.rollups") -> list[tuple[Any, ...]]:
    return connection.execute(f"select {columns} from {table} order by 1, 2").fetchall()


def upsert_rows(
    spec: UpsertSpec, cursor: psycopg.Cursor, columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> UpsertCounts:
    return upsert(cursor, spec, Rows(columns, rows)).counts


def upsert_query(
    spec: UpsertSpec, cursor: psycopg.Cursor, text: str, parameters: dict[str, Any] | None = None
) -> UpsertCounts:
    return upsert(cursor, spec, Query(text, parameters or {})).counts


@contextmanager
def transaction(url: str) -> Iterator[psycopg.Cursor]:
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("set local timezone = 'UTC'")  # opens it, so that an upsert is a savepoint
        yield cursor


def test_rows_are_inserted_updated_or_unchanged(database_url: str, connection: psycopg.Connection) -> None:
    connection.execute(ROLLUPS)
    with transaction(database_url) as cursor:
        assert upsert_rows(UPSERT, cursor, COLUMNS, rollups(("a", 1, 0), ("b", 2, 0))) == UpsertCounts(inserted=2)
    versions = "hire, created_at, updated_at, xmin, xmax, ctid"
    before = stored(connection, versions)
    with transaction(database_url) as cursor:
        counts = upsert_rows(UPSERT, cursor, COLUMNS, rollups(("c", 3, 0), ("b", 9, 0), ("a", 1, 0)))
    assert counts == UpsertCounts(inserted=1, updated=1, unchanged=1)
    after = stored(connection, versions)
    assert after[0] == before[0]
    assert after[1][1] == before[1][1]
    assert after[1][2] > before[1][2]
    assert stored(connection, "hire, valid") == [("a", 1), ("b", 9), ("c", 3)]


def test_replay_neither_rewrites_nor_locks(database_url: str, connection: psycopg.Connection) -> None:
    connection.execute(ROLLUPS)
    rows = rollups(*((f"hire {number}", number, 0) for number in range(3000)))
    versions = []
    for expected in (UpsertCounts(inserted=3000), UpsertCounts(unchanged=3000)):
        with transaction(database_url) as cursor:
            assert upsert_rows(UPSERT, cursor, COLUMNS, rows) == expected
        versions.append(stored(connection, "day, hire, xmin, xmax, ctid"))
    assert versions[0] == versions[1]


def test_equal_rows_do_not_wait_for_their_locks(database_url: str, connection: psycopg.Connection) -> None:
    connection.execute(ROLLUPS)
    with transaction(database_url) as cursor:
        upsert_rows(UPSERT, cursor, COLUMNS, rollups(("a", 1, 0)))
    with transaction(database_url) as holder, transaction(database_url) as cursor:
        holder.execute("select from public.rollups for update")
        cursor.execute("set lock_timeout = '1s'")
        assert upsert_rows(UPSERT, cursor, COLUMNS, rollups(("a", 1, 0))) == UpsertCounts(unchanged=1)


def test_last_of_equal_keys_wins(database_url: str, connection: psycopg.Connection) -> None:
    connection.execute(ROLLUPS)
    rows = rollups(("a", 1, 0), ("b", 1, 0), ("a", 2, 0), ("a", 3, 0))
    with transaction(database_url) as cursor:
        assert upsert_rows(UPSERT, cursor, COLUMNS, rows) == UpsertCounts(inserted=2, duplicates=2)
        query = (
            "select %(day)s::date as day, hire, valid, 0 as invalid "
            "from unnest(array['b', 'a', 'b'], array[5, 3, 6]) as source (hire, valid)"
        )
        counts = upsert_query(UPSERT, cursor, query, {"day": DAY})
    assert counts == UpsertCounts(updated=1, unchanged=1, duplicates=1)
    assert stored(connection, "hire, valid") == [("a", 3), ("b", 6)]


def test_no_rows_change_nothing(database_url: str, connection: psycopg.Connection) -> None:
    connection.execute(ROLLUPS)
    with transaction(database_url) as cursor:
        upsert_rows(UPSERT, cursor, COLUMNS, rollups(("a", 1, 0)))
        assert upsert_rows(UPSERT, cursor, COLUMNS, []) == UpsertCounts()
        assert (
            upsert_query(UPSERT, cursor, "select day, hire, valid, invalid from public.rollups where false")
            == UpsertCounts()
        )
    assert stored(connection, "hire, valid") == [("a", 1)]


def test_columns_in_any_order_and_all_in_the_key(database_url: str, connection: psycopg.Connection) -> None:
    connection.execute("create table public.pairs (a int, b int, primary key (a, b))")
    spec = UpsertSpec("public.pairs", ["b", "a"])
    with transaction(database_url) as cursor:
        assert upsert_rows(spec, cursor, ["b", "a"], [(1, 2), (1, 2)]) == UpsertCounts(inserted=1, duplicates=1)
        assert upsert_rows(spec, cursor, ["a", "b"], [(2, 1)]) == UpsertCounts(unchanged=1)
    assert stored(connection, table="public.pairs") == [(2, 1)]


def test_null_matches_null_in_the_key(database_url: str, connection: psycopg.Connection) -> None:
    connection.execute(
        "create table public.aggregates (org int not null, channel text, n int);"
        "create unique index on public.aggregates (org, channel) nulls not distinct"
    )
    spec = UpsertSpec("public.aggregates", ["org", "channel"])
    rows = [(1, None, 1), (1, "", 2), (2, None, 3), (1, None, 4)]
    with transaction(database_url) as cursor:
        assert upsert_rows(spec, cursor, ["org", "channel", "n"], rows) == UpsertCounts(inserted=3, duplicates=1)
        changed = [(1, None, 4), (1, "", 9)]
        assert upsert_rows(spec, cursor, ["org", "channel", "n"], changed) == UpsertCounts(updated=1, unchanged=1)
    assert stored(connection, "n", "public.aggregates order by 1 --") == [(3,), (4,), (9,)]


def test_nullable_key_does_not_compare_all_pairs(database_url: str, connection: psycopg.Connection) -> None:
    connection.execute("create table public.t (k int unique nulls not distinct, v int)")
    rows = [(None, 0), *((number, number) for number in range(30_000))]
    spec = UpsertSpec("public.t", ["k"])
    with transaction(database_url) as cursor:
        cursor.execute("set statement_timeout = '20s'")
        assert upsert_rows(spec, cursor, ["k", "v"], rows) == UpsertCounts(inserted=30_001)
        assert upsert_rows(spec, cursor, ["k", "v"], rows) == UpsertCounts(unchanged=30_001)


ODD = ["100%", 'sa"y', "Größe", "select", "%(x)s", "a.b", "{}"]


def test_odd_names(database_url: str, connection: psycopg.Connection) -> None:
    columns = ", ".join('"' + name.replace('"', '""') + '" int' for name in ODD)
    connection.execute("create schema odd")
    connection.execute(f'create table odd."T.a ""%% b" ({columns}, primary key ("100%"))'.replace("%%", "%"))
    spec = UpsertSpec('odd.T.a "% b', ["100%"])
    with transaction(database_url) as cursor:
        assert upsert_rows(spec, cursor, ODD, [range(len(ODD))]) == UpsertCounts(inserted=1)
        query = 'select 0 as "100%%", 1 as "sa""y", 7 as "%%(x)s", 8 as "{}"'
        assert upsert_query(spec, cursor, query) == UpsertCounts(updated=1)
        assert upsert(cursor, spec, Query(query), dry_run=True).counts == UpsertCounts(unchanged=1)
    assert stored(connection, table='odd."T.a ""% b"') == [(0, 1, 2, 3, 7, 5, 8)]


def test_partitioned_table(database_url: str, connection: psycopg.Connection) -> None:
    connection.execute(
        "create table public.p (k int primary key, v text) partition by range (k);"
        "create table public.p1 partition of public.p for values from (0) to (10);"
        "create table public.p2 partition of public.p for values from (10) to (20)"
    )
    spec = UpsertSpec("public.p", ["k"])
    with transaction(database_url) as cursor:
        assert upsert_rows(spec, cursor, ["k", "v"], [(1, "a"), (11, "b")]) == UpsertCounts(inserted=2)
        changed = [(1, "a"), (11, "c"), (12, "d")]
        assert upsert_rows(spec, cursor, ["k", "v"], changed) == UpsertCounts(inserted=1, updated=1, unchanged=1)


@pytest.mark.parametrize(
    ("type_name", "first", "second"),
    [
        ("mood", "sad", "happy"),
        ("positive", 1, 2),
        ("positive[]", [1], [1, 2]),
        ("int[]", [1, None], [2]),
        ("numeric(6,2)", Decimal("NaN"), "1.50"),
        ("numeric", 1.5, 2),
        ("float8", float("nan"), 0.1),
        ("real", 0.1, 0.2),
        ("jsonb", {"a": 1}, {"a": [2]}),
        ("json", {"a": 1}, {"a": [2]}),
        ("json[]", ['{"a": 1}'], ['{"a": 2}']),
        ("box", "(1,1),(0,0)", "(2,1),(1,0)"),
        ("inet", "10.0.0.1", "10.0.0.2"),
        ("int4range", "[1,3)", "[1,4)"),
        ("interval", "1 day", "2 days"),
        ("char(5)", "a", "b"),
        ("text", None, ""),
        ("timestamptz", "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"),
    ],
)
def test_replay_is_unchanged_and_a_change_is_updated_for_every_type(
    type_name: str, first: object, second: object, database_url: str, connection: psycopg.Connection
) -> None:
    connection.execute("create type mood as enum ('sad', 'happy'); create domain positive as int check (value > 0)")
    connection.execute(f"create table public.t (k int primary key, v {type_name})")
    spec = UpsertSpec("public.t", ["k"])
    with transaction(database_url) as cursor:
        outcomes = [upsert_rows(spec, cursor, ["k", "v"], [(1, value)]) for value in (first, first, second)]
        assert outcomes == [UpsertCounts(inserted=1), UpsertCounts(unchanged=1), UpsertCounts(updated=1)]


def test_comparison_is_after_the_cast_to_the_column(database_url: str, connection: psycopg.Connection) -> None:
    connection.execute("create table public.t (k int primary key, r real, n numeric(5,2))")
    spec = UpsertSpec("public.t", ["k"])
    with transaction(database_url) as cursor:
        query = "select 1 as k, 0.1::float8 as r, 2.345::numeric as n"
        assert upsert_query(spec, cursor, query) == UpsertCounts(inserted=1)
        assert upsert_query(spec, cursor, query) == UpsertCounts(unchanged=1)


@pytest.mark.parametrize(
    ("spec", "columns", "says"),
    [
        (UpsertSpec("public.nothing", ["k"]), ["k"], "table does not exist"),
        (UpsertSpec("t", ["k"]), ["k"], "name it as schema.table"),
        (UpsertSpec("public.v", ["k"]), ["k"], "table does not exist"),
        (UpsertSpec("public.t", []), ["k"], "key has no columns"),
        (UpsertSpec("public.t", ["v"]), ["v"], "no unique index .* exactly the columns of the key v"),
        (UpsertSpec("public.t", ["k", "v"]), ["k", "v"], "no unique index .* exactly the columns of the key k, v"),
        (UpsertSpec("public.t", ["partial"]), ["partial"], "no unique index"),
        (UpsertSpec("public.t", ["deferred"]), ["deferred"], "no unique index"),
        (UpsertSpec("public.t", ["nullable"]), ["nullable"], "key column nullable can be null"),
        (UpsertSpec("public.t", ["k"]), ["k", "w"], "no column w; it has k, v"),
        (UpsertSpec("public.t", ["k"], touch=["w"]), ["k"], "no column w"),
        (UpsertSpec("public.t", ["k"]), ["k", "doubled"], "generates column doubled"),
        (UpsertSpec("public.t", ["k"]), ["k", "always"], "generates column always"),
        (UpsertSpec("public.t", ["k"]), ["v"], "does not have key column k"),
        (UpsertSpec("public.t", ["k"]), ["k", "v", "v"], "has a column twice: k, v, v"),
        (UpsertSpec("public.t", ["k"], touch=["v"]), ["k", "v"], "column v is in both the source and `touch`"),
        (UpsertSpec("public.t", ["k"], touch=["k"]), ["k"], "key and touch name a column twice"),
    ],
)
def test_unsuitable_table_or_column_is_refused(
    spec: UpsertSpec, columns: Sequence[str], says: str, database_url: str, connection: psycopg.Connection
) -> None:
    connection.execute(
        "create table public.t (k int primary key, v int, partial int not null, deferred int unique deferrable, "
        "nullable int unique, doubled int generated always as (v * 2) stored, always int generated always as identity);"
        "create unique index on public.t (partial) where v > 0; create view public.v as select k from public.t"
    )
    with transaction(database_url) as cursor:
        with pytest.raises(PermanentError, match=says):
            upsert_rows(spec, cursor, columns, [[1] * len(columns)])
        with pytest.raises(PermanentError, match=says):
            upsert_query(spec, cursor, "select " + ", ".join(f"1 as {column}" for column in columns))
        # The transaction is still usable: each attempt was a savepoint of its own.
        assert upsert_query(UpsertSpec("public.t", ["k"]), cursor, "select 1 as k, 1 as partial") == UpsertCounts(
            inserted=1
        )


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ((DAY, "mark\x00er", 1, 0), "Row 2 .* column hire is text, which cannot hold its value: 22021 .*no NUL"),
        (("marker", "a", 1, 0), "Row 2 .* column day is date, which cannot hold this str"),
        ((DAY, "a", 2**40, 0), "Row 2 .* column valid is integer, which cannot hold this int"),
        ((DAY, "a", {"marker": 1}, 0), "Row 2 .* column valid is integer, which cannot hold this dict"),
        ((DAY, "marker", 1), "Row 2 .* it has 3 values for 4 columns"),
        ((DAY, "marker\ud800", 1, 0), "Row 2 .* column hire is text, which cannot hold this str"),
    ],
)
def test_row_that_does_not_fit_is_named_without_its_values(
    row: tuple[Any, ...], says: str, database_url: str, connection: psycopg.Connection
) -> None:
    connection.execute(ROLLUPS)
    with transaction(database_url) as cursor:
        with pytest.raises(PermanentError, match=says) as raised:
            upsert_rows(UPSERT, cursor, COLUMNS, [(DAY, "fine", 1, 0), row])
        assert raised.value.__suppress_context__
        assert "marker" not in str(raised.value)
        assert str(2**40) not in str(raised.value)
        assert stored(connection) == []
        assert upsert_rows(UPSERT, cursor, COLUMNS, rollups(("a", 1, 0))) == UpsertCounts(inserted=1)


def test_source_that_fails_midway_stores_nothing(database_url: str, connection: psycopg.Connection) -> None:
    connection.execute(ROLLUPS)

    def broken() -> Iterator[tuple[Any, ...]]:
        yield from rollups(("a", 1, 0))
        raise ConnectionResetError

    with transaction(database_url) as cursor, pytest.raises(ConnectionResetError):
        upsert_rows(UPSERT, cursor, COLUMNS, broken())
    assert stored(connection) == []


def test_dry_run_returns_the_same_counts_and_writes_nothing(database_url: str, connection: psycopg.Connection) -> None:
    connection.execute(ROLLUPS)
    with transaction(database_url) as cursor:
        upsert_rows(UPSERT, cursor, COLUMNS, rollups(("a", 1, 0), ("b", 1, 0)))
    before = stored(connection, "*, xmin, xmax")
    rows = rollups(("c", 3, 0), ("b", 2, 0), ("a", 1, 0), ("c", 4, 0))
    with transaction(database_url) as cursor:
        preview = upsert(cursor, UPSERT, Rows(COLUMNS, rows), dry_run=True)
        assert preview.counts == UpsertCounts(inserted=1, updated=1, unchanged=1, duplicates=1)
        assert preview.changes == [
            {"action": "update", "row": {"day": "2026-11-15", "hire": "b", "valid": "2", "invalid": "0"}},
            {"action": "insert", "row": {"day": "2026-11-15", "hire": "c", "valid": "4", "invalid": "0"}},
        ]
        many = rollups(*((f"hire {number:02}", number, 0) for number in range(PREVIEW_ROWS + 5)))
        changes = upsert(cursor, UPSERT, Rows(COLUMNS, many), dry_run=True).changes
        assert [change["row"]["valid"] for change in changes] == [str(number) for number in range(PREVIEW_ROWS)]
        query = "select day, hire, valid + 1 as valid, invalid from public.rollups"
        assert upsert(cursor, UPSERT, Query(query), dry_run=True).counts == UpsertCounts(updated=2)
        assert cursor.execute("select to_regclass('pg_temp.upsert_stage')").fetchone() == (None,)
    assert stored(connection, "*, xmin, xmax") == before
    with transaction(database_url) as cursor:
        assert upsert_rows(UPSERT, cursor, COLUMNS, rows) == preview.counts


def test_dry_run_refuses_a_query_that_writes(database_url: str, connection: psycopg.Connection) -> None:
    connection.execute(ROLLUPS)
    connection.execute(
        "create function sly() returns int language sql volatile as "
        "$$ insert into public.rollups values ('2026-01-01', 'sly', 1, 1) returning 1 $$"
    )
    query = "select current_date as day, 'a' as hire, sly() as valid, 0 as invalid"
    with (
        transaction(database_url) as cursor,
        pytest.raises(PermanentError, match="a query of a dry run writes"),
    ):
        upsert(cursor, UPSERT, Query(query), dry_run=True)
    assert stored(connection) == []


def test_query_can_end_with_a_comment_or_a_semicolon(database_url: str, connection: psycopg.Connection) -> None:
    connection.execute(ROLLUPS)
    query = "-- caller\nselect %(day)s::date as day, 'a' as hire, 7 %% 4 as valid, 0 as invalid"
    with transaction(database_url) as cursor:
        assert upsert_query(UPSERT, cursor, f"{query};\n", {"day": DAY}) == UpsertCounts(inserted=1)
        assert upsert_query(UPSERT, cursor, f"{query} -- the end", {"day": DAY}) == UpsertCounts(unchanged=1)


KEYS = st.tuples(st.integers(0, 3), st.sampled_from([None, "", "a", "ä"]))
ROWS = st.lists(st.tuples(KEYS, st.sampled_from([None, 0, 1, 2])), max_size=12)


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(ROWS, min_size=1, max_size=4))
def test_agrees_with_a_model(batches: list[Any], connection: psycopg.Connection) -> None:
    connection.execute(
        "drop table if exists public.m; create table public.m (a int not null, b text, v int);"
        "create unique index on public.m (a, b) nulls not distinct"
    )
    model: dict[Any, Any] = {}
    for batch in batches:
        expected = {"inserted": 0, "updated": 0, "unchanged": 0, "duplicates": len(batch) - len(dict(batch))}
        for key, value in dict(batch).items():
            outcome = "inserted" if key not in model else "unchanged" if model[key] == value else "updated"
            expected[outcome] += 1
            model[key] = value
        rows = [(value, *key) for key, value in batch]
        counts = upsert_rows(UpsertSpec("public.m", ["a", "b"]), connection.cursor(), ["v", "a", "b"], rows)
        assert counts == UpsertCounts(**expected)
        assert sum(astuple(counts)) == len(batch)
        assert {(a, b): v for a, b, v in connection.execute("select a, b, v from public.m")} == model


def together(*actions: Callable[[], UpsertCounts]) -> list[UpsertCounts]:
    outcomes: list[Any] = [None] * len(actions)
    barrier = threading.Barrier(len(actions))

    def run(position: int) -> None:
        barrier.wait(30)
        try:
            outcomes[position] = actions[position]()
        except BaseException as error:  # noqa: BLE001 - it belongs to the test's thread
            outcomes[position] = error

    threads = [threading.Thread(target=run, args=(position,)) for position in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return outcomes


@pytest.mark.slow
def test_concurrent_upserts_in_opposite_orders_do_not_deadlock(
    database_url: str, connection: psycopg.Connection
) -> None:
    connection.execute(ROLLUPS)
    names = [f"hire {number:04}" for number in range(2000)]

    def load(value: int, order: list[str]) -> UpsertCounts:
        with transaction(database_url) as cursor:
            return upsert_rows(UPSERT, cursor, COLUMNS, rollups(*((name, value, 0) for name in order)))

    for value in range(0, 8, 2):
        counts = together(partial(load, value, names), partial(load, value + 1, names[::-1]))
        assert [sum(astuple(count)) for count in counts] == [2000, 2000]
        assert sum(count.inserted for count in counts) == (2000 if value == 0 else 0)
        assert {row[0] for row in stored(connection, "valid, 0")} in ({value}, {value + 1})


def test_row_inserted_concurrently_is_updated(database_url: str, connection: psycopg.Connection) -> None:
    connection.execute(ROLLUPS)

    def meanwhile(rows: list[tuple[Any, ...]]) -> UpsertCounts:
        with transaction(database_url) as first:
            upsert_rows(UPSERT, first, COLUMNS, rollups(("a", 1, 0), ("b", 1, 0)))
            outcome: list[UpsertCounts] = []
            thread = threading.Thread(target=lambda: outcome.append(load(rows)))
            thread.start()
            waiting = "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
            while thread.is_alive() and connection.execute(waiting).fetchone() is None:
                thread.join(0.02)
        thread.join(30)
        return outcome[0]

    def load(rows: list[tuple[Any, ...]]) -> UpsertCounts:
        with transaction(database_url) as second:
            return upsert_rows(UPSERT, second, COLUMNS, rows)

    counts = meanwhile(rollups(("a", 1, 0), ("b", 2, 0), ("c", 3, 0)))
    assert counts == UpsertCounts(inserted=1, updated=1, unchanged=1)
    assert stored(connection, "hire, valid") == [("a", 1), ("b", 2), ("c", 3)]


def test_autocommit_connection_gets_its_own_transaction(connection: psycopg.Connection) -> None:
    connection.execute(ROLLUPS)
    with pytest.raises(PermanentError):
        upsert_rows(UPSERT, connection.cursor(), COLUMNS, [*rollups(("a", 1, 0)), (DAY, "b", "x", 0)])
    assert stored(connection) == []
    assert upsert_rows(UPSERT, connection.cursor(), COLUMNS, rollups(("a", 1, 0))) == UpsertCounts(inserted=1)


GROUPS = """
create table public.daily (day date, event varchar(20), n int check (n >= 0), primary key (day, event));
create function public.refuse() returns trigger language plpgsql as
$$begin if new.event like 'evil%' then raise 'not today'; end if; return new; end$$;
create trigger refuse before insert or update on public.daily for each row execute function public.refuse();
"""
DAILY = UpsertSpec("public.daily", ["day", "event"])


def isolate(cursor: psycopg.Cursor, *rows: tuple[str, int]) -> UpsertResult:
    query = "select %(day)s::date as day, event, n from unnest(%(events)s::text[], %(n)s::bigint[]) as r (event, n)"
    events, numbers = [event for event, _ in rows], [number for _, number in rows]
    return upsert(cursor, DAILY, Query(query, {"day": DAY, "events": events, "n": numbers}, isolate_by="event"))


def refused(outcome: UpsertResult) -> list[tuple[str | None, int | None, str | None]]:
    return [(refusal.group, refusal.rows, refusal.error.sqlstate) for refusal in outcome.refused]


def test_refused_groups_are_isolated_and_the_rest_is_stored(database_url: str, connection: psycopg.Connection) -> None:
    connection.execute(GROUPS)
    connection.execute("insert into public.daily values (%s, 'same', 1), (%s, 'changed', 1)", [DAY, DAY])
    rows = [("same", 1), ("evil", 1), ("changed", 2), ("new", 1), ("new", 3), ("minus", -1), ("huge", 2**40)]
    with transaction(database_url) as cursor:
        outcome = isolate(cursor, *rows, ("much longer than its column", 1), ("evil", 2))
    assert outcome.counts == UpsertCounts(inserted=1, updated=1, unchanged=1, duplicates=1)
    assert refused(outcome) == [
        ("evil", 2, "P0001"),
        ("huge", 1, "22003"),
        ("minus", 1, "23514"),
        ("much longer than its column", 1, "22001"),
    ]
    assert stored(connection, "event, n", "public.daily") == [("changed", 2), ("new", 3), ("same", 1)]


@pytest.mark.slow
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c", "d", "evil 1", "evil 2", "evil 3"]), st.integers(-1, 2))))
def test_isolation_counts_every_row(
    database_url: str, connection: psycopg.Connection, rows: list[tuple[str, int]]
) -> None:
    connection.execute("drop table if exists public.daily; drop function if exists public.refuse()")
    connection.execute(GROUPS)
    last = dict(rows)
    bad = {event for event in last if event.startswith("evil") or last[event] < 0}
    for _ in range(2):
        with transaction(database_url) as cursor:
            outcome = isolate(cursor, *rows)
        assert {refusal.group for refusal in outcome.refused} == bad
        assert sum(astuple(outcome.counts)) + sum(refusal.rows or 0 for refusal in outcome.refused) == len(rows)
        expected = sorted((event, number) for event, number in last.items() if event not in bad)
        assert stored(connection, "event, n", "public.daily") == expected
    assert (outcome.counts.inserted, outcome.counts.updated) == (0, 0)


def test_three_of_five_thousand_groups_are_isolated(database_url: str, connection: psycopg.Connection) -> None:
    connection.execute(GROUPS)
    events = [f"evil {number}" if number in {7, 8, 4000} else f"{number}" for number in range(5000)]
    with transaction(database_url) as cursor:
        outcome = isolate(cursor, *((event, 1) for event in events))
    assert outcome.counts == UpsertCounts(inserted=4997)
    assert [refusal.group for refusal in outcome.refused] == ["evil 4000", "evil 7", "evil 8"]


def test_deferred_constraint_refuses_its_group_only(database_url: str, connection: psycopg.Connection) -> None:
    connection.execute(
        "create table public.events (name text primary key); insert into public.events values ('known');"
        "create table public.daily (day date, event text references public.events deferrable initially deferred, "
        "n int, primary key (day, event))"
    )
    with transaction(database_url) as cursor:
        outcome = isolate(cursor, ("known", 1), ("unknown", 1))
    assert refused(outcome) == [("unknown", 1, "23503")]
    assert stored(connection, "event", "public.daily order by 1 --") == [("known",)]


def test_error_that_does_not_blame_rows_fails_everything(database_url: str, connection: psycopg.Connection) -> None:
    connection.execute(GROUPS)
    rows = [("a", 1), ("b", 1)]
    broken = {
        psycopg.errors.DeadlockDetected: "raise sqlstate '40P01'",
        psycopg.errors.UndefinedTable: "perform 1 from public.gone",
    }
    for error, statement in broken.items():
        connection.execute(
            "create or replace function public.refuse() returns trigger language plpgsql as "
            f"$$begin if new.event = 'b' then {statement}; end if; return new; end$$"
        )
        with pytest.raises(error), transaction(database_url) as cursor:
            isolate(cursor, *rows)
        assert stored(connection, "event", "public.daily order by 1 --") == []
    with pytest.raises(psycopg.errors.DivisionByZero), transaction(database_url) as cursor:
        upsert(cursor, DAILY, Query("select current_date as day, 'a' as event, 1 / 0 as n", isolate_by="event"))


def test_isolation_by_a_column_outside_the_key_is_refused(database_url: str, connection: psycopg.Connection) -> None:
    connection.execute(GROUPS)
    with (
        pytest.raises(PermanentError, match=r"of the key \(day, event\) only, not by n"),
        transaction(database_url) as cursor,
    ):
        upsert(cursor, DAILY, Query("select 1", isolate_by="n"))


def test_groups_of_odd_names_are_isolated(database_url: str, connection: psycopg.Connection) -> None:
    connection.execute('create table public.odd ("100%" int primary key, "sa""y" int check ("sa""y" > 0))')
    query = 'select k as "100%%", v as "sa""y" from unnest(%(k)s::int[], %(v)s::int[]) as r (k, v)'
    with transaction(database_url) as cursor:
        source = Query(query, {"k": [1, 2], "v": [1, 0]}, isolate_by="100%")
        outcome = upsert(cursor, UpsertSpec("public.odd", ["100%"]), source)
    assert refused(outcome) == [("2", 1, "23514")]
