"""Values keep their meaning on the way into a column, or are refused."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.postgres.copy_format import format_of

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
        ("int4", Decimal(7), "7"),
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
        ("uuid", str(ID).upper(), str(ID)),
        ("jsonb", {"a": [1, None]}, '{"a": [1, null]}'),
        ("jsonb", [], "[]"),
        ("jsonb", '{"a":1}', '{"a": 1}'),
        ("json", '{"a":1}', '{"a":1}'),
        ("bytea", bytearray(b"\x00\xff"), r"\x00ff"),
    ],
)
def test_value_is_stored_alike_in_both_formats(
    base_type: str, value: object, stored: str, connection: psycopg.Connection
) -> None:
    connection.execute("set timezone = 'UTC'")
    connection.execute(f"create table t (v {base_type})")
    column = format_of(base_type)
    for binary_type in {None, column.binary_type}:
        copy_format = "binary" if binary_type else "text"
        with connection.cursor().copy(f"copy t from stdin (format {copy_format})") as copy:
            if binary_type:
                copy.set_types([binary_type])
            copy.write_row(column.convert_all([value]))
    assert set(connection.execute("select v::text from t")) == {(stored,)}


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
        ("int4", float("inf")),
        ("int8", 2**63),
        ("int8", Decimal("NaN")),
        ("float8", "much"),
        ("float8", 10**400),
        ("numeric", "much"),
        ("numeric", False),
        ("text", "a\x00b"),
        ("text", {"a": 1}),
        ("text", 1.5),
        ("date", "2026-02-29"),
        ("date", datetime(2026, 2, 28, 1, tzinfo=UTC)),
        ("date", 20260228),
        ("timestamptz", date(2026, 2, 28)),
        ("timestamptz", "yesterday"),
        ("timestamptz", 1772236800),
        ("uuid", "not one"),
        ("jsonb", float("nan")),
        ("jsonb", {"a": {1}}),
        ("bytea", "text"),
    ],
)
def test_value_that_would_not_keep_its_meaning_is_refused(base_type: str, value: object) -> None:
    with pytest.raises((TypeError, ValueError, ArithmeticError)):
        format_of(base_type).convert_all([value])


@pytest.mark.parametrize("base_type", ["float4", "int4[]", "inet", "json", "interval"])
def test_some_types_go_as_text(base_type: str) -> None:
    assert format_of(base_type).binary_type is None


@given(st.integers())
def test_integer_is_never_cut(number: int) -> None:
    try:
        assert format_of("int4").convert_all([0, number]) == [0, number]
    except ValueError:
        assert not -(2**31) <= number < 2**31
