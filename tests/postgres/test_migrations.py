"""Migrations: order, transactions, repeated and concurrent calls, databases of earlier releases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from aggregator.core.errors import PermanentError
from aggregator.core.paths import SQL
from aggregator.postgres.migrations import databases, folder_of, main, migrate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Connect = Callable[[], psycopg.Connection]


BY_ALEMBIC = """
create schema migrations;
create table migrations.functions (
    database text not null, name text not null, digest text not null, applied_at timestamptz default now() not null,
    primary key (database, name)
);
create table migrations.history (
    database text not null, name text not null, digest text not null, applied_at timestamptz default now() not null,
    primary key (database, name)
);
create table migrations.shop (version_num varchar(32) not null constraint shop_pkc primary key);
create function public.a() returns int language sql return 1;
create table public.first (n int);
insert into migrations.functions values
    ('shop', 'shop/a.sql', '42657604d0726bb89bd8402f8a6c5c63d64d1dc060d5fe0530b23378d68203fd');
insert into migrations.history values
    ('shop', '0001_first', '9faa82c32a727e5fad45d4fecde14a087a245f0b3160b18185fcceb2adab503a');
insert into migrations.shop values ('0001');
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "shop" / "migrations").mkdir(parents=True)
    (tmp_path / "shop" / "functions").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def connect(database_url: str) -> Connect:
    return partial(psycopg.connect, database_url)


def write(root: Path, name: str, text: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_migrations_are_applied_once_in_order(root: Path, connect: Connect, connection: psycopg.Connection) -> None:
    write(
        root,
        "shop/migrations/0001_first.sql",
        "create table public.first (n int); insert into public.first values (1);",
    )
    write(root, "shop/migrations/0002_second.sql", "alter table public.first add column note text default '100 %';")

    assert migrate(connect, "shop", root).migrations == ["0001_first", "0002_second"]
    assert migrate(connect, "shop", root).migrations == []
    write(root, "shop/migrations/0003_third.sql", "update public.first set n = n + 1;")
    assert migrate(connect, "shop", root).migrations == ["0003_third"]

    assert connection.execute("select * from public.first").fetchall() == [(2, "100 %")]
    names = connection.execute("select name from migrations.history order by applied_at").fetchall()
    assert names == [("0001_first",), ("0002_second",), ("0003_third",)]


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("select 1 / 0", "22012 division_by_zero"),
        (
            "alter table half add n int unique deferrable initially deferred; insert into half values (1), (1)",
            "23505 unique_violation",
        ),
    ],
    ids=["statement", "deferred constraint"],
)
def test_failing_migration_is_rolled_back_and_earlier_ones_stay(
    root: Path, connect: Connect, connection: psycopg.Connection, statement: str, reason: str
) -> None:
    write(root, "shop/migrations/0001_good.sql", "create table public.good ();")
    bad = write(root, "shop/migrations/0002_bad.sql", f"create table public.half (); {statement};")

    with pytest.raises(PermanentError) as raised:
        migrate(connect, "shop", root)
    text = str(raised.value)
    assert text.startswith(f"shop/migrations/0002_bad.sql failed and was rolled back: {reason}")
    assert text.endswith(". Applied before it: 0001_good. Fix the cause and run this again.")
    assert connection.execute(
        "select to_regclass('public.good')::text, to_regclass('public.half')::text"
    ).fetchone() == (
        "good",
        None,
    )

    bad.write_text("create table public.half ();")
    assert migrate(connect, "shop", root).migrations == ["0002_bad"]


def test_failure_outside_a_file_names_the_database(
    root: Path, connect: Connect, connection: psycopg.Connection
) -> None:
    connection.execute("create schema migrations; create table migrations.history ()")
    with pytest.raises(PermanentError) as raised:
        migrate(connect, "shop", root)
    assert str(raised.value) == (
        'Database shop was not brought up to date: 42703 undefined_column: column "name" does not exist. Applied '
        "before it: nothing. Fix the cause and run this again."
    )


def test_changed_or_removed_file_is_refused(root: Path, connect: Connect) -> None:
    path = write(root, "shop/migrations/0001_first.sql", "create table public.first ();")
    migrate(connect, "shop", root)

    path.write_text("create table public.first (n int);")
    with pytest.raises(PermanentError, match="0001_first was applied to shop, and its file was changed later"):
        migrate(connect, "shop", root)

    path.unlink()
    with pytest.raises(PermanentError, match="0001_first was applied to shop, and its file was removed later"):
        migrate(connect, "shop", root)


@pytest.mark.parametrize(
    "names",
    [["0002_late.sql"], ["0001_a.sql", "0003_c.sql"], ["0001_a.sql", "0001_b.sql"], ["1_short.sql"]],
    ids=["starts late", "gap", "double", "short number"],
)
def test_gaps_and_repeated_numbers_are_refused(root: Path, connect: Connect, names: list[str]) -> None:
    for name in names:
        write(root, f"shop/migrations/{name}", "select 1;")
    with pytest.raises(PermanentError, match="numbered without gaps, each number once"):
        migrate(connect, "shop", root)


def test_changed_functions_are_applied_again(root: Path, connect: Connect, connection: psycopg.Connection) -> None:
    write(root, "shop/migrations/0001_schema.sql", "create schema shop;")
    caller = "create or replace function shop.a() returns int language sql as 'select shop.b()';"
    write(root, "shop/functions/a.sql", caller)
    callee = write(
        root, "shop/functions/b.sql", "create or replace function shop.b() returns int language sql as 'select 1';"
    )

    assert migrate(connect, "shop", root).functions == ["a", "b"]
    assert migrate(connect, "shop", root).functions == []
    callee.write_text("create or replace function shop.b() returns int language sql as 'select 2';")
    assert migrate(connect, "shop", root).functions == ["b"]
    assert connection.execute("select shop.a()").fetchone() == (2,)


def test_functions_have_fixed_settings_and_are_not_executed_by_everyone(
    root: Path, connect: Connect, connection: psycopg.Connection
) -> None:
    write(
        root, "shop/functions/a.sql", "create or replace function public.a(int) returns int language sql as 'select 1'"
    )
    write(root, "shop/functions/b.sql", "create or replace function public.b() returns int return 1")
    connection.execute("create function public.other() returns int language sql as 'select 1'")
    migrate(connect, "shop", root)
    found = """
        select proname, proconfig, has_function_privilege('public', oid, 'execute') from pg_proc
        where pronamespace = 'public'::regnamespace order by proname
    """
    assert connection.execute(found).fetchall() == [
        ("a", ['search_path=""', "DateStyle=ISO, MDY", "TimeZone=UTC"], False),
        ("b", None, False),
        ("other", None, True),
    ]


def test_concurrent_calls_apply_each_migration_once(root: Path, connect: Connect) -> None:
    write(root, "shop/migrations/0001_count.sql", "create table public.runs (); select pg_sleep(0.3);")
    with ThreadPoolExecutor(4) as threads:
        reports = list(threads.map(lambda _: migrate(connect, "shop", root), range(4)))
    assert sorted(report.migrations for report in reports) == [[], [], [], ["0001_count"]]


def test_two_products_can_share_a_database(root: Path, connect: Connect, connection: psycopg.Connection) -> None:
    write(root, "shop/migrations/0001_same_name.sql", "create schema shop;")
    write(root, "post/migrations/0001_same_name.sql", "create schema post;")
    assert migrate(connect, "shop", root).migrations == ["0001_same_name"]
    assert migrate(connect, "post", root).migrations == ["0001_same_name"]
    assert connection.execute("select count(*) from migrations.history").fetchone() == (2,)


@pytest.mark.parametrize("database", databases())
def test_every_database_is_migrated_once(database: str, connect: Connect) -> None:
    names = [path.stem for path in sorted((folder_of(database) / "migrations").glob("*.sql"))]
    assert names
    assert migrate(connect, database).migrations == names
    report = migrate(connect, database)
    assert (report.migrations, report.functions, str(report)) == ([], [], f"{database}: up to date")


def test_clicks_keeps_existing_tables_and_rows(connect: Connect, connection: psycopg.Connection) -> None:
    connection.execute("""
        create table public.hires (id text primary key, title text);
        create table public.click_rollups (
            day date, hire_id text references public.hires (id) on delete cascade, valid_clicks int, invalid_clicks int,
            created_at timestamptz, updated_at timestamptz, primary key (day, hire_id)
        );
        insert into public.hires values ('h', 'kept');
        insert into public.click_rollups values ('2026-01-01', 'h', 1, 2);
    """)
    migrate(connect, "clicks")
    kept = connection.execute(
        "select title, valid_clicks, invalid_clicks from public.hires join public.click_rollups on true"
    )
    assert kept.fetchall() == [("kept", 1, 2)]


def test_telemetry_merges_duplicates_and_archives_them(database_url: str, connection: psycopg.Connection) -> None:
    connection.execute("""
        create table public.telemetry (user_id uuid, event text, value numeric, meta jsonb, created_at timestamptz);
        insert into public.telemetry (event, created_at) values ('a', '2026-01-01'), ('b', '2026-01-01');
        create table public.telemetry_daily (
            id serial primary key, date date, event text, count int, unique_users int, meta jsonb
        );
        insert into public.telemetry_daily (date, event, count, unique_users, meta) values
            ('2026-01-01', 'a', 3, 1, '{"kept": true}'), ('2026-01-01', 'a', 2, 2, null),
            ('2026-01-01', 'a', null, 9, null), ('2026-01-02', 'a', 1, 1, null), (null, 'a', 1, 1, null),
            (null, 'a', 1, 1, '[]')
    """)
    notices: list[str | None] = []

    def connect() -> psycopg.Connection:
        opened = psycopg.connect(database_url)
        opened.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        return opened

    assert migrate(connect, "telemetry").migrations == ["0001_telemetry_daily"]

    assert connection.execute("select count(distinct id) from public.telemetry").fetchone() == (2,)
    kept = connection.execute("select id, count, value_sum from public.telemetry_daily order by id").fetchall()
    assert kept == [(1, 3, None), (4, 1, None), (6, 1, None)]
    archived = "select (duplicate ->> 'id')::int from public.telemetry_daily_duplicates order by 1"
    assert connection.execute(archived).fetchall() == [(2,), (3,), (5,)]
    assert any("3 duplicate rows were merged away" in (notice or "") for notice in notices)
    with pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute("insert into public.telemetry_daily (date, event) values (null, 'a')")


@pytest.mark.parametrize(
    ("key", "suits"),
    [
        ("date date not null, event text not null, unique (event, date)", True),
        ("date date, event text, unique nulls not distinct (date, event)", True),
        ("date date, event text, unique (date, event)", False),
        ("date date not null, event text not null, unique (date)", False),
    ],
)
def test_telemetry_adds_a_unique_index_unless_one_suits(
    connect: Connect, connection: psycopg.Connection, key: str, suits: bool
) -> None:
    connection.execute(f"create table public.telemetry_daily (count int, unique_users int, meta jsonb, {key})")
    migrate(connect, "telemetry")
    indexes = "select count(*) from pg_indexes where tablename = 'telemetry_daily'"
    assert connection.execute(indexes).fetchone() == (1 if suits else 2,)


def test_command_uses_airflow_connections(
    monkeypatch: pytest.MonkeyPatch, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for database in databases():
        monkeypatch.setenv(f"AIRFLOW_CONN_{database.upper()}_DB", database_url)
    assert main([]) == 0
    assert "clicks: 0001_click_rollups" in capsys.readouterr().out
    assert main(["clicks"]) == 0
    assert capsys.readouterr().out == "clicks: up to date\n"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://u:hunter2@127.0.0.1:1/clicks?connect_timeout=2", "cannot be reached by connection clicks_db"),
        (None, "Connection 'clicks_db' is unknown. Create it in Airflow, or set AIRFLOW_CONN_CLICKS_DB."),
    ],
)
def test_unreachable_database_prints_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str | None, words: str
) -> None:
    if url:
        monkeypatch.setenv("AIRFLOW_CONN_CLICKS_DB", url)
    assert main(["clicks"]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("clicks: ")
    assert words in printed
    assert printed.count("\n") == 1
    assert "hunter2" not in printed


def test_database_migrated_by_alembic_continues_and_loses_its_version_table(
    root: Path, connect: Connect, connection: psycopg.Connection
) -> None:
    """``BY_ALEMBIC`` was recorded from the last release that used Alembic."""
    write(root, "shop/migrations/0001_first.sql", "create table public.first (n int);\n")
    write(root, "shop/migrations/0002_second.sql", "alter table public.first add column note text;\n")
    write(root, "shop/functions/a.sql", "create or replace function public.a() returns int return 1;\n")
    connection.execute(BY_ALEMBIC)

    report = migrate(connect, "shop", root)

    assert (report.migrations, report.functions) == (["0002_second"], ["a"])
    assert connection.execute("select name from migrations.history order by name").fetchall() == [
        ("0001_first",),
        ("0002_second",),
    ]
    assert connection.execute("select to_regclass('migrations.shop')").fetchone() == (None,)
    assert migrate(connect, "shop", root).migrations == []


def test_alembic_table_with_unknown_version_stays(root: Path, connect: Connect, connection: psycopg.Connection) -> None:
    write(root, "shop/migrations/0001_first.sql", "create table public.first (n int);\n")
    connection.execute(BY_ALEMBIC)
    connection.execute("update migrations.shop set version_num = '0002'")
    migrate(connect, "shop", root)
    assert connection.execute("select version_num from migrations.shop").fetchall() == [("0002",)]


def test_functions_recorded_by_path_are_recorded_by_name(connect: Connect, connection: psycopg.Connection) -> None:
    """Earlier releases recorded ``ohlcv/aggregate.sql``, and kept the rows of files that were removed."""
    migrate(connect, "market")
    names = "select name from migrations.functions order by name"
    stems = connection.execute(names).fetchall()
    connection.execute(
        "update migrations.functions set name = 'ohlcv/' || name || '.sql';"
        "insert into migrations.functions values ('market', 'ohlcv/removed.sql', '0'), ('other', 'other/kept.sql', '0')"
    )

    report = migrate(connect, "market")

    assert report.migrations == []
    assert [(name,) for name in report.functions] == stems
    assert {*connection.execute(names).fetchall()} == {*stems, ("other/kept.sql",)}
    assert str(migrate(connect, "market")) == "market: up to date"


def test_session_limits_of_the_server_are_lifted(
    database_url: str, connection: psycopg.Connection, tmp_path: Path
) -> None:
    limits = {"statement_timeout": "2min", "idle_in_transaction_session_timeout": "2min", "lock_timeout": "10s"}
    for name, value in limits.items():
        database, setting = sql.Identifier(connection.info.dbname), sql.Identifier(name)
        connection.execute(sql.SQL("alter database {} set {} = {}").format(database, setting, value))
    (tmp_path / "shop/migrations").mkdir(parents=True)
    (tmp_path / "shop/migrations/0001_limits.sql").write_text(
        "create table public.limits as select name, setting from pg_settings where name ~ '_timeout$'"
    )
    migrate(partial(psycopg.connect, database_url), "shop", tmp_path)
    found: dict[str, str] = dict(connection.execute("select * from public.limits").fetchall())
    assert {name: found[name] for name in limits} == {
        "statement_timeout": "0",
        "idle_in_transaction_session_timeout": "0",
        "lock_timeout": "30000",
    }


def test_waiting_call_logs_the_process_that_holds_the_lock(
    database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "shop/migrations").mkdir(parents=True)
    (tmp_path / "shop/migrations/0001_one.sql").write_text("select 1")
    with psycopg.connect(database_url, autocommit=True) as left, ThreadPoolExecutor(1) as threads:
        pid = left.info.backend_pid
        left.execute("select pg_advisory_lock(hashtext('aggregator.migrations'))")
        waiting = threads.submit(migrate, partial(psycopg.connect, database_url), "shop", tmp_path)
        blocked = "select count(*) from pg_stat_activity where %s = any(pg_blocking_pids(pid))"
        while left.execute(blocked, [pid]).fetchone() == (0,):
            assert not waiting.done()
        left.execute("select pg_advisory_unlock_all()")
        assert waiting.result().migrations == ["0001_one"]
    assert f"waiting for another migration (server process {pid})" in caplog.text


def test_failing_file_prints_one_line_with_its_name_and_applied_files(
    monkeypatch: pytest.MonkeyPatch,
    database_url: str,
    connection: psycopg.Connection,
    capsys: pytest.CaptureFixture[str],
) -> None:
    connection.execute("create schema ops; create table ops.alerts (id text)")
    monkeypatch.setenv("AIRFLOW_CONN_OPS_DB", database_url)
    assert main(["ops"]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("ops: alerts/migrations/0002_alerts.sql failed and was rolled back: 42")
    assert printed.endswith(". Applied before it: 0001_dead_letters. Fix the cause and run this again.\n")
    assert printed.count("\n") == 1


def test_kpis_of_an_older_release_keep_key_and_resend(
    root: Path, connect: Connect, connection: psycopg.Connection
) -> None:
    first = "kpi/migrations/0001_kpi.sql"
    write(root, first, (SQL / first).read_text())
    migrate(connect, "kpi", root)
    connection.execute(
        """
        insert into kpi.jobs (trace_id, dag_id, run_id, environment)
        values ('trace_20250814_120000_abc12345', 'd', 'r', 'e');
        insert into kpi.job_kpis (trace_id, kpi_id, name, type, report_back, metadata, resend)
        select 'trace_20250814_120000_abc12345', id, id, 'price', false, '{}', wish
        from (values ('a', null), ('b', 'up to try 2')) as given (id, wish);
        create function kpi.claim_kpi(text, text, text, text) returns text language sql return 'claimed';
        """
    )

    migrate(connect, "kpi")

    kpis = connection.execute("select kpi_id, resend, send_number, idempotency_key from kpi.job_kpis order by kpi_id")
    assert kpis.fetchall() == [
        ("a", False, 1, "trace_20250814_120000_abc12345/a"),
        ("b", True, 1, "trace_20250814_120000_abc12345/b"),
    ]
    claims = "select count(*) from pg_proc where proname = 'claim_kpi'"
    assert connection.execute(claims).fetchone() == (1,)
