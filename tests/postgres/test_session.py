"""Transactions do not depend on the defaults of their database, and leave nothing in their session."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import NoReturn

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from aggregator.core.errors import PermanentError
from aggregator.postgres import session
from aggregator.postgres.hook import PostgresTransactionHook
from aggregator.postgres.migrations import databases, migrate
from aggregator.postgres.upsert import Rows, UpsertCounts, UpsertSpec, upsert

MINUTE = timedelta(minutes=1)
FOREIGN_DEFAULTS = {
    "bytea_output": "escape",
    "client_encoding": "LATIN1",
    "datestyle": "SQL, DMY",
    "default_transaction_isolation": "repeatable read",
    "extra_float_digits": "-10",
    "intervalstyle": "sql_standard",
    "standard_conforming_strings": "off",
    "timezone": "Asia/Kolkata",
}
VALUES = r"""
    select timestamptz '2026-11-15 18:30Z', date '2026-11-05', timestamp '2026-11-05 01:02:03', interval '1 day 02:03',
        0.1::float8 + 0.2::float8, '\x0001ff'::bytea, '\d', 'żółw €'
"""


@pytest.fixture
def hook(database_url: str, monkeypatch: pytest.MonkeyPatch) -> PostgresTransactionHook:
    monkeypatch.setenv("AIRFLOW_CONN_TEST_DB", database_url)
    return PostgresTransactionHook("test_db")


def test_defaults_of_the_database_do_not_change_values(
    hook: PostgresTransactionHook, connection: psycopg.Connection
) -> None:
    for name, value in FOREIGN_DEFAULTS.items():
        connection.execute(
            sql.SQL("alter database {} set {} = {}").format(
                sql.Identifier(connection.info.dbname), sql.Identifier(name), value
            )
        )
    with hook.transaction(timeout=MINUTE) as cursor:
        assert cursor.execute(VALUES).fetchone() == (
            datetime(2026, 11, 15, 18, 30, tzinfo=UTC),
            date(2026, 11, 5),
            datetime(2026, 11, 5, 1, 2, 3),  # noqa: DTZ001 - of a column without a zone
            timedelta(days=1, hours=2, minutes=3),
            0.1 + 0.2,
            b"\x00\x01\xff",
            r"\d",
            "żółw €",
        )
        assert cursor.execute("select (timestamptz '2026-11-05 00:00Z')::text").fetchone() == (
            "2026-11-05 00:00:00+00",
        )
        assert cursor.execute("show transaction_isolation").fetchone() == ("read committed",)


def test_transaction_leaves_nothing_in_its_session(database_url: str) -> None:
    def state() -> dict[str, str]:
        names = [*session.PINNED, "statement_timeout", "search_path", "transaction_isolation"]
        values = {name: str(connection.execute(f"show {name}").fetchone()) for name in names}
        connection.rollback()
        return values

    with psycopg.connect(database_url, options="-c timezone=Asia/Kolkata -c datestyle=SQL,DMY") as connection:
        before = state()
        for _ in range(10):
            with session.begin(connection, {"statement_timeout": "5s"}) as cursor:
                cursor.execute("select %s::int", [1])
                assert cursor.execute("show statement_timeout").fetchone() == ("5s",)
            connection.commit()
        assert connection.execute("select count(*) from pg_prepared_statements").fetchone() == (0,)
        assert state() == before


def test_setting_unknown_to_the_server_is_skipped(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        cursor = session.begin(connection, {"no_such_setting": "1", "work_mem": "5MB"})
        assert cursor.execute("show work_mem").fetchone() == ("5MB",)


def test_autocommit_in_the_extra_does_not_split_a_transaction(
    database_url: str, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.execute("create table t (n int)")
    monkeypatch.setenv("AIRFLOW_CONN_TEST_DB", f"{database_url}{'&' if '?' in database_url else '?'}autocommit=true")

    def fail() -> NoReturn:
        with PostgresTransactionHook("test_db").transaction(timeout=MINUTE) as cursor:
            cursor.execute("insert into t values (1)")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert connection.execute("select count(*) from t").fetchone() == (0,)


@pytest.mark.parametrize("encoded_database", ["SQL_ASCII", "LATIN1"], indirect=True)
def test_text_and_json_are_unchanged_in_a_database_that_is_not_utf_8(
    encoded_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_TEST_DB", encoded_database)
    with PostgresTransactionHook("test_db").transaction(timeout=MINUTE) as cursor:
        cursor.execute("create table t (name text, payload jsonb)")
        cursor.execute("insert into t values (%s, %s)", ["Größe", Jsonb({"Größe": "é"})])
        assert cursor.execute("select * from t").fetchall() == [("Größe", {"Größe": "é"})]


@pytest.mark.parametrize(
    ("encoded_database", "says"),
    [("LATIN1", "22P05 untranslatable_character"), ("MULE_INTERNAL", "MULE_INTERNAL")],
    indirect=["encoded_database"],
)
def test_character_outside_the_encoding_is_refused_with_advice(
    encoded_database: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_TEST_DB", encoded_database)
    with (
        pytest.raises(PermanentError, match=f"{says}.*a database whose encoding is UTF8"),
        PostgresTransactionHook("test_db").transaction(timeout=MINUTE) as cursor,
    ):
        cursor.execute("select %s", ["€"])


@pytest.mark.parametrize("encoded_database", ["SQL_ASCII"], indirect=True)
@pytest.mark.parametrize("database", databases())
def test_every_database_can_be_sql_ascii(database: str, encoded_database: str) -> None:
    assert migrate(partial(psycopg.connect, encoded_database), database).migrations
    assert migrate(partial(psycopg.connect, encoded_database), database).migrations == []


@pytest.mark.parametrize("encoded_database", ["SQL_ASCII"], indirect=True)
def test_rows_are_upserted_into_a_database_that_is_sql_ascii(
    encoded_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_TEST_DB", encoded_database)
    spec, source = UpsertSpec("public.t", ["name"]), Rows(["name", "meta"], [("Größe", {"Größe": 1})])
    with PostgresTransactionHook("test_db").transaction(timeout=MINUTE) as cursor:
        cursor.execute("create table public.t (name text primary key, meta jsonb)")
        assert upsert(cursor, spec, source).counts == UpsertCounts(inserted=1)
        assert upsert(cursor, spec, source).counts == UpsertCounts(unchanged=1)
