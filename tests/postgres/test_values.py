"""Values from Python are stored without loss, or refused."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator.core.errors import PermanentError
from aggregator.postgres.upsert import Rows, UpsertSpec, upsert

if TYPE_CHECKING:
    import psycopg

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
        ("float8", float("nan"), "NaN"),
        ("float8", "-inf", "-Infinity"),
        ("numeric", 0.1, "0.1"),
        ("numeric", "12345678901234567890.123456789", "12345678901234567890.123456789"),
        ("numeric", 2**200, str(2**200)),
        ("numeric", Decimal("NaN"), "NaN"),
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
        ("numeric", "much"),
        ("numeric", False),
        ("text", "a\x00b"),
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
        ("jsonb", float("nan")),
        ("jsonb", {"a": {1}}),
        ("bytea", "text"),
    ],
)
def test_value_that_would_lose_something_is_refused(
    base_type: str, value: object, connection: psycopg.Connection
) -> None:
    connection.execute(f"create table public.t (k int primary key, v {base_type})")
    with pytest.raises(PermanentError, match=r"^Row 1 for public.t was refused: column v is [\w ]+, which cannot hold"):
        upsert(connection.cursor(), UpsertSpec("public.t", ["k"]), Rows(["k", "v"], [(1, value)]))
    assert connection.execute("select from public.t").fetchall() == []


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers())
def test_integer_is_never_cut(connection: psycopg.Connection, number: int) -> None:
    connection.execute("drop table if exists public.t; create table public.t (k int primary key, v int)")
    fits = -(2**31) <= number < 2**31
    with nullcontext() if fits else pytest.raises(PermanentError):
        upsert(connection.cursor(), UpsertSpec("public.t", ["k"]), Rows(["k", "v"], [(1, number)]))
    assert connection.execute("select v from public.t").fetchall() == ([(number,)] if fits else [])
