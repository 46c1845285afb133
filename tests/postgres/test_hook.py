"""Transactions of tasks: time limits, killed tasks, errors without values of rows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
import traceback
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

import psycopg
import pytest
from airflow.sdk.exceptions import AirflowTaskTimeout
from airflow.sdk.execution_time.timeout import timeout as task_timeout

from aggregator.core.errors import AggregatorError, PermanentError, TransientError
from aggregator.postgres.hook import MAX_APPLICATION_NAME, PostgresTransactionHook
from aggregator.postgres.upsert import Query, UpsertSpec, upsert

if TYPE_CHECKING:
    from collections.abc import Callable

    from dev.postgres import Postgres

MARKER = "hunter2"
MINUTE = timedelta(minutes=1)


@pytest.fixture
def hook(database_url: str, monkeypatch: pytest.MonkeyPatch) -> PostgresTransactionHook:
    monkeypatch.setenv("AIRFLOW_CONN_TEST_DB", database_url)
    return PostgresTransactionHook("test_db")


def shown(error: BaseException) -> str:
    """All that a log would print of it."""
    return "".join(traceback.format_exception(error)) + repr(error)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def others(connection: psycopg.Connection) -> list[tuple[str, str]]:
    return connection.execute(
        "select application_name, state from pg_stat_activity "
        "where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()"
    ).fetchall()


def test_transaction_commits_at_its_end(hook: PostgresTransactionHook, connection: psycopg.Connection) -> None:
    with hook.transaction(timeout=MINUTE) as cursor:
        cursor.execute("create table t (n int)")
        cursor.execute("insert into t values (1)")
        assert connection.execute("select to_regclass('t')").fetchone() == (None,)
    assert connection.execute("select n from t").fetchall() == [(1,)]


@pytest.mark.parametrize("error", [KeyError("x"), KeyboardInterrupt(), AirflowTaskTimeout()])
def test_exception_rolls_back_and_closes(
    hook: PostgresTransactionHook, connection: psycopg.Connection, error: BaseException
) -> None:
    def fail(cursor: psycopg.Cursor) -> NoReturn:
        cursor.execute("create table t (n int)")
        raise error

    with pytest.raises(type(error)) as raised, hook.transaction(timeout=MINUTE) as cursor:
        fail(cursor)
    assert raised.value is error
    assert cursor.connection.closed
    assert connection.execute("select to_regclass('t')").fetchone() == (None,)


def test_session_is_configured_for_the_transaction(hook: PostgresTransactionHook) -> None:
    with hook.transaction(timeout=timedelta(seconds=90), application_name="a" * 62 + "äö") as cursor:
        names = (
            "statement_timeout",
            "idle_in_transaction_session_timeout",
            "client_connection_check_interval",
            "timezone",
        )
        assert [cursor.execute(f"show {name}").fetchone() for name in names] == [("90s",), ("90s",), ("1s",), ("UTC",)]
        (name,) = cursor.execute("show application_name").fetchone() or ("",)
        assert name == "a" * 62
        assert len(name.encode()) <= MAX_APPLICATION_NAME
        cursor.execute("commit")
        assert cursor.execute("show statement_timeout").fetchone() == ("0",)


def test_without_timeout_the_setting_of_the_server_applies(hook: PostgresTransactionHook) -> None:
    with hook.transaction(timeout=None) as cursor:
        assert cursor.execute("show statement_timeout").fetchone() == ("0",)


def test_tiny_timeout_is_not_unlimited(hook: PostgresTransactionHook) -> None:
    # The statement is cancelled; or, on a busy machine, the session was idle for longer and is ended.
    with pytest.raises(TransientError), hook.transaction(timeout=timedelta(microseconds=1)) as cursor:
        cursor.execute("select pg_sleep(60)")


def test_statement_timeout_is_transient(hook: PostgresTransactionHook) -> None:
    with (
        pytest.raises(TransientError, match="57014 query_canceled: canceling statement due to statement timeout"),
        # The limit also applies to the pause before the statement, which is longer on a busy machine.
        hook.transaction(timeout=timedelta(seconds=3)) as cursor,
    ):
        cursor.execute("select pg_sleep(60)")


def context(execution_timeout: timedelta | None, started: datetime) -> Any:
    return {
        "task": SimpleNamespace(execution_timeout=execution_timeout),
        "ti": SimpleNamespace(dag_id="click_rollups", task_id="load", run_id="manual__1", start_date=started),
    }


def test_task_transaction_has_the_rest_of_the_time_limit(hook: PostgresTransactionHook) -> None:
    started = datetime.now(UTC) - timedelta(minutes=50)
    with hook.task_transaction(context(timedelta(hours=1), started)) as cursor:
        (milliseconds,) = cursor.execute(
            "select setting::int from pg_settings where name = 'statement_timeout'"
        ).fetchone() or (0,)
        assert 0 < milliseconds <= timedelta(minutes=10) / timedelta(milliseconds=1)
        assert cursor.execute("show application_name").fetchone() == ("click_rollups/load/manual__1",)


def test_resumed_task_has_the_whole_time_limit(hook: PostgresTransactionHook) -> None:
    started = datetime.now(UTC) - timedelta(hours=2)
    with hook.task_transaction(context(timedelta(hours=1), started)) as cursor:
        assert cursor.execute("show statement_timeout").fetchone() == ("1h",)


def test_read_only_refuses_writes(hook: PostgresTransactionHook, connection: psycopg.Connection) -> None:
    connection.execute("create table t (n int)")
    with (
        pytest.raises(PermanentError, match="25006 read_only_sql_transaction"),
        hook.transaction(timeout=MINUTE, read_only=True) as cursor,
    ):
        cursor.execute("insert into t values (1)")


@pytest.mark.slow
def test_write_on_a_replica_is_transient(own_postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    with psycopg.connect(own_postgres.url, autocommit=True) as primary:
        primary.execute("create table t (n int primary key)")
    assert own_postgres.data
    (own_postgres.data / "standby.signal").touch()
    own_postgres.restart()
    monkeypatch.setenv("AIRFLOW_CONN_TEST_DB", own_postgres.url)
    hook = PostgresTransactionHook("test_db")
    with pytest.raises(TransientError, match="25006 read_only"), hook.transaction(timeout=MINUTE) as cursor:
        cursor.execute("insert into t values (1)")
    with (
        pytest.raises(TransientError, match="25006 read_only"),
        hook.transaction(timeout=MINUTE) as cursor,
    ):
        upsert(cursor, UpsertSpec("public.t", ["n"]), Query("select 1 as n"), dry_run=True)


KILLED = """
    import sys
    from datetime import timedelta
    from aggregator.postgres.hook import PostgresTransactionHook

    hook = PostgresTransactionHook("test_db")
    with hook.transaction(timeout=timedelta(minutes=5), application_name="victim") as cursor:
        cursor.execute("insert into t values (1)")
        print("open", flush=True)
        {then}
"""


@pytest.mark.slow
@pytest.mark.parametrize("then", ["cursor.execute('select pg_sleep(300)')", "sys.stdin.read()"])
def test_killed_task_leaves_no_transaction(
    then: str, hook: PostgresTransactionHook, connection: psycopg.Connection
) -> None:
    assert hook.get_conn_id() == "test_db"  # its environment variable is the subprocess's too
    connection.execute("create table t (n int primary key)")
    script = textwrap.dedent(KILLED).format(then=then)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as victim:
        try:
            assert victim.stdout
            assert any(line == "open\n" for line in victim.stdout)
            state = "active" if "sleep" in then else "idle in transaction"
            wait_until(lambda: others(connection) == [("victim", state)])
        finally:
            victim.send_signal(signal.SIGKILL)
    wait_until(lambda: others(connection) == [])
    connection.execute("insert into t values (1)")


@pytest.mark.slow
def test_execution_timeout_of_airflow_ends_the_statement(
    hook: PostgresTransactionHook, connection: psycopg.Connection
) -> None:
    limit = task_timeout(0.2)  # type: ignore[no-untyped-call]
    with pytest.raises(AirflowTaskTimeout), hook.transaction(timeout=MINUTE) as cursor, limit:
        cursor.execute("select pg_sleep(300)")
    wait_until(lambda: others(connection) == [])


SCHEMA = """
create table parent (id text primary key);
create table t (
    id text primary key, n int not null, day date, parent text references parent, constraint positive check (n > 0)
);
insert into t values ('hunter2', 1);
create function guard() returns trigger language plpgsql as $$
begin
    if new.n = 99 then raise exception 'ninety-nine is not allowed'; end if;
    return new;
end $$;
create trigger guard before insert on t for each row execute function guard();
"""


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        (
            "insert into t values ('hunter2', 1)",
            ["23505 unique_violation", 'violates unique constraint "t_pkey"', "table public.t", "constraint t_pkey"],
        ),
        ("insert into t values ('a', -1, null, null)", ["23514 check_violation", "constraint positive"]),
        ("insert into t values ('hunter2-', null)", ["23502 not_null_violation", "column n"]),
        ("insert into t values ('a', 1, null, 'hunter2')", ["23503 foreign_key_violation", "t_parent_fkey"]),
        ("insert into t values ('a', 1, 'hunter2')", ["22007 invalid_datetime_format"]),
        ("select 'hunter2'::int", ["22P02 invalid_text_representation"]),
        ("insert into t values ('hunter2-', 99)", ["P0001 raise_exception: ninety-nine is not allowed"]),
        ("select nothing from t", ['42703 undefined_column: column "nothing" does not exist']),
    ],
)
def test_error_names_the_problem_and_no_value(
    statement: str, says: list[str], hook: PostgresTransactionHook, connection: psycopg.Connection
) -> None:
    connection.execute(SCHEMA)
    statement = statement.replace("'hunter2'", "%(marker)s")
    with pytest.raises(PermanentError) as raised, hook.transaction(timeout=MINUTE) as cursor:
        cursor.execute(statement, {"marker": MARKER})
    for part in says:
        assert part in str(raised.value)
    assert "test_db" in str(raised.value)
    assert MARKER not in shown(raised.value)


def test_misuse_of_psycopg_is_permanent_and_shows_no_value(hook: PostgresTransactionHook) -> None:
    with pytest.raises(PermanentError, match="ProgrammingError") as raised, hook.transaction(timeout=MINUTE) as cursor:
        cursor.execute("select %s, %s", [MARKER])
    assert MARKER not in shown(raised.value)


def test_lost_connection_is_transient(hook: PostgresTransactionHook, connection: psycopg.Connection) -> None:
    def lose(cursor: psycopg.Cursor) -> None:
        connection.execute("select pg_terminate_backend(%s)", [cursor.connection.info.backend_pid])
        cursor.execute("select 1")

    with pytest.raises(TransientError, match="test_db"), hook.transaction(timeout=MINUTE) as cursor:
        lose(cursor)


def test_unreachable_host_is_transient_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_GONE_DB", f"postgres://someone:{MARKER}@127.0.0.1:1/db")
    with pytest.raises(TransientError, match=r"connection gone_db \(host 127.0.0.1, port 1\)") as raised:
        PostgresTransactionHook("gone_db").transaction(timeout=MINUTE).__enter__()
    assert MARKER not in shown(raised.value)


def test_unknown_connection_is_permanent_with_advice() -> None:
    with (
        pytest.raises(
            PermanentError, match=r"'test_db' is unknown\. Create it in Airflow, or set AIRFLOW_CONN_TEST_DB\."
        ),
        PostgresTransactionHook("test_db").transaction(timeout=MINUTE),
    ):
        pytest.fail("there is no such connection")


@pytest.mark.parametrize("missing", ["from nowhere.t", "from nothing", ", nothing", ", nothing()"])
def test_missing_object_names_the_migration_command(hook: PostgresTransactionHook, missing: str) -> None:
    with (
        pytest.raises(PermanentError, match=r"python -m aggregator\.postgres\.migrations$"),
        hook.transaction(timeout=MINUTE) as cursor,
    ):
        cursor.execute(f"select 1 {missing}")


def test_unknown_settings_of_libpq_are_permanent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ODD_DB", f"postgres://someone:{MARKER}@127.0.0.1:1/db?no_such_option={MARKER}")
    with pytest.raises(PermanentError, match="odd_db") as raised:
        PostgresTransactionHook("odd_db").transaction(timeout=MINUTE).__enter__()
    assert MARKER not in shown(raised.value)


@pytest.mark.parametrize(
    "option",
    ["sslmode=bogus", "keepalives=abc", "target_session_attrs=bogus", "port=abc", "hostaddr=1.1.1.1%2C2.2.2.2"],
)
def test_setting_that_libpq_refuses_is_permanent_and_its_value_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ODD_DB", f"postgres://someone:{MARKER}@127.0.0.1:1/db?{option}")
    with pytest.raises(PermanentError, match=r"libpq refused the settings of connection odd_db .*Correct") as raised:
        PostgresTransactionHook("odd_db").transaction(timeout=MINUTE).__enter__()
    assert option.partition("=")[2] not in str(raised.value)


@pytest.mark.parametrize("value", ["0", "abc", "5"])
def test_prepare_threshold_in_the_extra_has_no_effect(
    hook: PostgresTransactionHook, monkeypatch: pytest.MonkeyPatch, database_url: str, value: str
) -> None:
    joined = "&" if "?" in database_url else "?"
    monkeypatch.setenv("AIRFLOW_CONN_TEST_DB", f"{database_url}{joined}prepare_threshold={value}")
    with hook.transaction(timeout=MINUTE) as cursor:
        for _ in range(7):
            cursor.execute("select %s::int", [1])
        assert cursor.execute("select count(*) from pg_prepared_statements").fetchone() == (0,)


@pytest.fixture
def guarded(own_postgres: Postgres) -> Postgres:
    """A server of its own that asks for passwords."""
    server = own_postgres
    assert server.data
    (server.data / "pg_hba.conf").write_text("local all postgres trust\nlocal all all scram-sha-256\n")
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"create role someone login password '{MARKER}'")
        connection.execute("select pg_reload_conf()")
    return server


@pytest.mark.slow
def test_refused_password_is_not_shown(guarded: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = f"{MARKER}-wrong"
    monkeypatch.setenv("AIRFLOW_CONN_TEST_DB", f"postgres://someone:{wrong}@/postgres?host={guarded.data}")
    with pytest.raises(AggregatorError, match=r"password authentication.* percent-encode its") as raised:
        PostgresTransactionHook("test_db").transaction(timeout=MINUTE).__enter__()
    assert MARKER not in shown(raised.value)
    monkeypatch.setenv("AIRFLOW_CONN_TEST_DB", f"postgres://someone:{MARKER}@/postgres?host={guarded.data}")
    with PostgresTransactionHook("test_db").transaction(timeout=MINUTE) as cursor:
        assert cursor.execute("select current_user").fetchone() == ("someone",)
