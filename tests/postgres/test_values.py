"""Values from Python are stored without loss, or refused."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID

import pendulum
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator.core.errors import PermanentError
from aggregator.postgres.upsert import Rows, UpsertSpec, upsert

if TYPE_CHECKING:
    from collections.abc import Sequence

CEST = timezone(timedelta(hours=2))
ID = UUID("6c1f4d0e-5d5c-4f9e-8d0a-0c3a2b1d4e5f")


@pytest.mark.parametrize(
    ("base_type", "value", "stored"),
    [
        ("bool", True, "true"),
        ("bool", 0, "false"),
        ("bool", "true", "true"),
        ("int2", -(2**15), "-32768"),
        ("int4", "2147483647", "2147483647"),
        ("int4", 5.0, "5"),
        ("int4", Decimal("7.00"), "7"),
        ("int8", 2**63 - 1, "9223372036854775807"),
        ("float4", "1.5", "1.5"),
        ("float8", 3, "3"),
        ("float8", "0.0", "0"),
        ("float8", Decimal("0.1"), "0.1"),
        ("float8", float("nan"), "NaN"),
        ("float8", "-inf", "-Infinity"),
        ("numeric", 0.1, "0.1"),
        ("numeric", "12345678901234567890.123456789", "12345678901234567890.123456789"),
        ("numeric", 2**200, str(2**200)),
        ("numeric", Decimal("NaN"), "NaN"),
        ("numeric", float("-inf"), "-Infinity"),
        ("numeric", Decimal("1e131071"), f"1{131_071 * '0'}"),
        ("numeric", Decimal("1e-16383"), f"0.{16_382 * '0'}1"),
        ("numeric(6,2)", "1.005", "1.01"),
        ("char(3)", "a", "a"),
        ("varchar(3)", "abc", "abc"),
        ("text", "tab\t\\N newline\n 😀", "tab\t\\N newline\n 😀"),
        ("text", 42, "42"),
        ("text", ID, str(ID)),
        ("date", "2026-02-28", "2026-02-28"),
        ("date", datetime(2026, 2, 28, 2, tzinfo=CEST), "2026-02-28"),
        ("timestamptz", "2026-02-28T00:00:00Z", "2026-02-28 00:00:00+00"),
        ("timestamptz", "2026-02-28 01:02:03", "2026-02-28 01:02:03+00"),
        ("timestamptz", datetime(2026, 2, 28, 2, tzinfo=CEST), "2026-02-28 00:00:00+00"),
        ("timestamp", datetime(2026, 2, 28, 2, tzinfo=CEST), "2026-02-28 00:00:00"),
        ("timestamp", "2026-02-28T12:00:00.123456", "2026-02-28 12:00:00.123456"),
        ("timestamp", "2026-02-28T02:00:00+02:00", "2026-02-28 00:00:00"),
        # pendulum rounds differences of distant years.
        ("timestamp", pendulum.datetime(9999, 6, 24, 22, 17, 19, 759272), "9999-06-24 22:17:19.759272"),
        ("timestamptz", pendulum.datetime(1, 3, 8, 9, 54, 38, 737130), "0001-03-08 09:54:38.73713+00"),
        ("date", pendulum.datetime(2026, 2, 28), "2026-02-28"),
        ("uuid", str(ID).upper(), str(ID)),
        ("jsonb", {"a": [1, None]}, '{"a": [1, null]}'),
        ("jsonb", [], "[]"),
        ("jsonb", '{"a":1}', '{"a": 1}'),
        ("json", '{"a":1}', '{"a":1}'),
        ("bytea", bytearray(b"\x00\xff"), r"\x00ff"),
    ],
)
def test_value_that_fits_is_stored(base_type: str, value: object, stored: str, connection: psycopg.Connection) -> None:
    connection.execute("set timezone = 'UTC'")
    connection.execute(f"create table public.t (k int primary key, v {base_type})")
    upsert(connection.cursor(), UpsertSpec("public.t", ["k"]), Rows(["k", "v"], [(1, value)]))
    assert connection.execute("select v::text from public.t").fetchall() == [(stored,)]


@pytest.mark.parametrize(
    ("base_type", "value"),
    [
        ("bool", 2),
        ("bool", "perhaps"),
        ("int2", 2**15),
        ("int4", 2**31),
        ("int4", -(2**31) - 1),
        ("int4", True),
        ("int4", 1.5),
        ("int4", "1.5"),
        ("int4", Decimal("1.5")),
        ("int4", float("inf")),
        ("int4", Decimal("Infinity")),
        ("int8", 2**63),
        ("int8", Decimal("NaN")),
        ("float8", "much"),
        ("float8", 10**400),
        ("float8", "1e400"),
        ("float8", Decimal("-1e400")),
        ("float8", "1e-400"),
        ("float8", True),
        ("float4", 1e300),
        ("numeric", Decimal("1e131072")),
        ("numeric", Decimal("1e-16384")),
        ("numeric", Decimal("1e-70000")),
        ("numeric(6,2)", 12345),
        ("numeric", "much"),
        ("numeric", False),
        ("text", "a\x00b"),
        ("varchar(3)", "abcd"),
        ("text", {"a": 1}),
        ("text", 1.5),
        ("text", b"ab"),
        ("text", date(2026, 2, 28)),
        ("date", "2026-02-29"),
        ("date", datetime(2026, 2, 28, 1, tzinfo=UTC)),
        ("date", 20260228),
        ("timestamptz", date(2026, 2, 28)),
        ("timestamptz", "yesterday"),
        ("timestamp", "now"),
        ("date", "2026-02-28T02:00:00+01:00"),
        ("date", "01/02/2026"),
        ("timestamptz", 1772236800),
        ("uuid", "not one"),
        ("uuid", 5),
        ("jsonb", float("nan")),
        ("jsonb", {"a": {1}}),
        ("bytea", "text"),
    ],
)
def test_value_that_would_lose_something_is_refused(
    base_type: str, value: object, connection: psycopg.Connection
) -> None:
    connection.execute(f"create table public.t (k int primary key, v {base_type})")
    with pytest.raises(
        PermanentError, match=r"^Row 1 for public.t was refused: column v is [\w (),]+, which cannot hold"
    ):
        upsert(connection.cursor(), UpsertSpec("public.t", ["k"]), Rows(["k", "v"], [(1, value)]))
    assert connection.execute("select from public.t").fetchall() == []


INTEGERS = st.integers(-70_000, 70_000) | st.integers(-(2**66), 2**66)
NUMBERS = INTEGERS | st.floats() | st.decimals(allow_nan=False) | st.decimals(-(10**9), 10**9, places=4)
TEXTS = st.text(max_size=6)
TIMES = st.datetimes(timezones=st.none() | st.timezones()).map(
    lambda time: time.astimezone(UTC) if time.tzinfo and 1 < time.year < 9999 else time.replace(tzinfo=UTC)
)
VALUES: dict[str, st.SearchStrategy[object]] = {
    **dict.fromkeys(["int2", "int4", "int8"], INTEGERS | INTEGERS.map(str)),
    **dict.fromkeys(["float8", "numeric", "numeric(12,3)"], NUMBERS | NUMBERS.map(str)),
    **dict.fromkeys(["timestamptz", "timestamptz(3)", "timestamp", "timestamp(0)"], TIMES),
    **dict.fromkeys(["text", "varchar(4)", "char(4)"], TEXTS),
    "date": st.dates(),
    "uuid": st.uuids() | st.uuids().map(str),
}


@pytest.mark.slow
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(sorted(VALUES)).flatmap(lambda name: st.tuples(st.just(name), VALUES[name])))
def test_value_is_stored_as_the_server_reads_its_text(connection: psycopg.Connection, case: tuple[str, object]) -> None:
    base_type, value = case
    connection.execute("set timezone = 'UTC'; drop table if exists public.t")
    connection.execute(f"create table public.t (k int primary key, v {base_type})")
    stored: Sequence[object] = []
    with suppress(PermanentError):
        upsert(connection.cursor(), UpsertSpec("public.t", ["k"]), Rows(["k", "v"], [(1, value)]))
        stored = connection.execute("delete from public.t returning v::text").fetchall()
    expected: Sequence[object] = []
    with suppress(psycopg.DataError):
        expected = connection.execute("insert into public.t values (1, %s) returning v::text", [str(value)]).fetchall()
    assert stored == expected


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers())
def test_integer_is_never_cut(connection: psycopg.Connection, number: int) -> None:
    connection.execute("drop table if exists public.t; create table public.t (k int primary key, v int)")
    fits = -(2**31) <= number < 2**31
    with nullcontext() if fits else pytest.raises(PermanentError):
        upsert(connection.cursor(), UpsertSpec("public.t", ["k"]), Rows(["k", "v"], [(1, number)]))
    assert connection.execute("select v from public.t").fetchall() == ([(number,)] if fits else [])
