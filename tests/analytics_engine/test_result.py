from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.analytics_engine.result import AnalyticsEngineResult, Column
from aggregator.core.errors import PermanentError, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator


def body_of(meta: dict[str, str], *rows: dict[str, Any], announced: int | None = None) -> bytes:
    columns = [{"name": name, "type": type_} for name, type_ in meta.items()]
    return json.dumps({"meta": columns, "data": rows, "rows": len(rows) if announced is None else announced}).encode()


def read(*body: bytes) -> list[tuple[Any, ...]]:
    return list(AnalyticsEngineResult(body))


@pytest.mark.parametrize(
    ("type_", "value", "converted"),
    [
        ("UInt64", 7, 7),
        ("UInt64", "7", 7),
        ("UInt64", "18446744073709551615", 2**64 - 1),
        ("UInt64", Decimal("3.0"), 3),
        ("Int64", "-9223372036854775808", -(2**63)),
        ("UInt8", 255, 255),
        ("Int256", str(2**255 - 1), 2**255 - 1),
        ("Float64", 1, 1.0),
        ("Float64", Decimal("0.1"), 0.1),
        ("Float64", "1.5e3", 1500.0),
        ("Float32", "-2", -2.0),
        ("Decimal(18, 4)", Decimal("1.2345"), Decimal("1.2345")),
        ("Decimal64(4)", "1.2345", Decimal("1.2345")),
        ("String", "", ""),
        ("String", "l'été 🌞", "l'été 🌞"),
        ("DateTime", "2026-11-15 23:59:59", datetime(2026, 11, 15, 23, 59, 59, tzinfo=UTC)),
        ("DateTime('UTC')", "2026-11-15 00:00:00", datetime(2026, 11, 15, tzinfo=UTC)),
        ("Date", "2028-02-29", date(2028, 2, 29)),
        ("Bool", True, True),
        ("Nullable(UInt64)", None, None),
        ("Nullable(UInt64)", "7", 7),
        ("LowCardinality(String)", "DE", "DE"),
        ("LowCardinality(Nullable(String))", None, None),
    ],
)
def test_value_is_read_by_its_type(type_: str, value: Any, converted: Any) -> None:
    result = Column.of("c", type_).read(value)
    assert result == converted
    assert type(result) is type(converted)


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        ("UInt64", None),
        ("UInt64", True),
        ("UInt64", -1),
        ("UInt64", 2**64),
        ("UInt64", str(2**64)),
        ("UInt64", Decimal("1.5")),
        ("UInt64", Decimal("1e999999999")),
        ("UInt64", "1.5"),
        ("UInt64", "1_000"),
        ("UInt64", " 1"),
        ("UInt64", "\N{ARABIC-INDIC DIGIT ONE}"),
        ("UInt64", ""),
        ("UInt64", "9" * 5000),
        ("UInt8", 256),
        ("Int8", -129),
        ("Float64", None),
        ("Float64", "nan"),
        ("Float64", "inf"),
        ("Float64", "1_0.0"),
        ("Float64", Decimal("1e400")),
        ("Float64", False),
        ("Float64", "abc"),
        ("Decimal(9, 2)", "Infinity"),
        ("String", 1),
        ("String", None),
        ("DateTime", "2026-11-15"),
        ("DateTime", "2026-11-15T00:00:00Z"),
        ("DateTime", "2026-02-30 00:00:00"),
        ("DateTime", 1763164800),
        ("Date", "2026-11-31"),
        ("Date", "20261115"),
        ("Bool", 1),
        ("Nullable(UInt64)", "seven"),
    ],
)
def test_value_of_another_type_is_refused_and_not_shown(type_: str, value: Any) -> None:
    with pytest.raises(PermanentError, match="column 'c'") as refused:
        Column.of("c", type_).read(value)
    if isinstance(value, str) and value.strip():
        assert value not in str(refused.value).replace("column 'c'", "")
    assert refused.value.__suppress_context__


@pytest.mark.parametrize(
    "type_",
    ["", "Array(String)", "DateTime64(3)", "DateTime('Europe/Berlin')", "UInt7", "Nullable(Map(String, String))"],
)
def test_unknown_type_is_refused(type_: str) -> None:
    with pytest.raises(PermanentError, match="cannot be read"):
        read(body_of({"c": type_}))


def test_values_are_in_the_order_of_the_columns() -> None:
    result = AnalyticsEngineResult([body_of({"a": "String", "n": "UInt64"}, {"n": "2", "a": "x"}, {"a": "y", "n": 3})])
    assert [(column.name, column.type_name) for column in result.columns] == [("a", "String"), ("n", "UInt64")]
    assert list(result) == [("x", 2), ("y", 3)]
    assert list(result) == []


def test_columns_are_known_without_rows() -> None:
    result = AnalyticsEngineResult([body_of({"a": "String"})])
    assert [column.name for column in result.columns] == ["a"]
    assert list(result) == []


def test_empty_result_has_no_rows_and_no_columns() -> None:
    assert AnalyticsEngineResult.empty().columns == ()
    assert list(AnalyticsEngineResult.empty()) == []


def test_other_keys_are_ignored() -> None:
    body = (
        b'{"x": {"y": [1, {"z": 2}]}, "meta": [{"name": "n", "type": "UInt8"}], "data": [{"n": 1}], "rows": 1, "e": []}'
    )
    assert read(body) == [(1,)]


@given(st.data())
def test_body_in_any_pieces_gives_the_same_rows(data: st.DataObject) -> None:
    body = body_of({"a": "String", "n": "UInt64"}, {"a": "é'\n", "n": "2"}, {"a": "🌞", "n": 3})
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)))))
    pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert read(*pieces) == [("é'\n", 2), ("🌞", 3)]


@given(st.integers(min_value=0, max_value=10_000))
def test_body_cut_anywhere_is_transient(cut: int) -> None:
    body = body_of({"a": "String"}, {"a": "x"}, {"a": "y"})
    with pytest.raises(TransientError, match="incomplete"):
        read(body[: cut % len(body)])


@pytest.mark.parametrize("announced", [0, 1, 3, "2"])
def test_announced_count_that_differs_is_transient(announced: Any) -> None:
    body = body_of({"a": "String"}, {"a": "x"}, {"a": "y"}, announced=announced)
    result = AnalyticsEngineResult([body])
    assert [next(result), next(result)] == [("x",), ("y",)]
    with pytest.raises(TransientError, match="2 rows"):
        next(result)


@pytest.mark.parametrize(
    "body", [b"", b"<html>secret</html>", b'{"meta": []} secret', b'{"rows": NaN}', b'{"a": "\xff secret"}']
)
def test_invalid_json_is_transient_and_not_shown(body: bytes) -> None:
    with pytest.raises(TransientError) as cut:
        read(body)
    assert "secret" not in str(cut.value)
    assert cut.value.__suppress_context__


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"1",
        b'{"success": false, "errors": []}',
        b'{"meta": [], "data": []}',
        b'{"meta": {}, "data": [], "rows": 0}',
        b'{"meta": [{"name": "a"}], "data": [], "rows": 0}',
        b'{"data": [{"a": 1}], "meta": [{"name": "a", "type": "UInt8"}], "rows": 1}',
        b'{"meta": [{"name": "a", "type": "UInt8"}], "data": {}, "rows": 1}',
        b'{"meta": [{"name": "a", "type": "UInt8"}], "data": [1], "rows": 1}',
        b'{"meta": [{"name": "a", "type": "UInt8"}], "data": [{}], "rows": 1}',
        b'{"meta": [{"name": "a", "type": "UInt8"}], "data": [{"b": 1}], "rows": 1}',
        b'{"meta": [{"name": "a", "type": "UInt8"}], "data": [{"a": 1, "b": 1}], "rows": 1}',
        b'{"meta": [{"name": "a", "type": "UInt8"}], "data": [{"a": [1]}], "rows": 1}',
        b'{"meta": [{"name": "a", "type": "UInt8"}, {"name": "a", "type": "UInt8"}], "data": [{"a": 1}], "rows": 1}',
    ],
)
def test_json_without_a_result_is_refused(body: bytes) -> None:
    with pytest.raises(PermanentError, match="not the result of a query"):
        read(body)


LONG = b"9" * 5000


@pytest.mark.parametrize("type_", ["Int64", "Float64"])
@pytest.mark.parametrize("number", [LONG, b"-" + LONG, LONG + b".5", b"1e99999999999999999999"])
def test_number_too_large_for_any_column_is_refused(type_: str, number: bytes) -> None:
    head = b'{"meta": [{"name": "n", "type": "%s"}], "data": [{"n": 1}, {"n": ' % type_.encode()
    with pytest.raises(PermanentError) as refused:
        read(head + number + b'}], "rows": 2}')
    assert "999" not in str(refused.value)
    assert refused.value.__suppress_context__


def test_announced_count_that_is_too_long_is_refused() -> None:
    with pytest.raises(PermanentError, match="too large to read"):
        read(b'{"meta": [{"name": "n", "type": "UInt8"}], "data": [{"n": 1}], "rows": ' + LONG + b"}")


def test_deeply_nested_type_is_refused() -> None:
    with pytest.raises(PermanentError, match="cannot be read") as refused:
        read(body_of({"c": "Nullable(" * 50_000 + "String" + ")" * 50_000}))
    assert len(str(refused.value)) < 400


def test_body_is_read_as_rows_are_taken() -> None:
    read_so_far = []

    def body() -> Iterator[bytes]:
        for piece in (b'{"meta":[{"name":"a","type":"UInt8"}],"data":[{"a":1}', b',{"a":2}', b'],"rows":2}'):
            read_so_far.append(piece)
            yield piece

    result = AnalyticsEngineResult(body())
    assert len(read_so_far) == 1
    assert list(result) == [(1,), (2,)]
    assert len(read_so_far) == 3
