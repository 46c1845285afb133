"""Functions of the dialect, and the kind of each expression as far as it is known before the query is sent.

Analytics Engine checks kinds more strictly than ClickHouse. It returns 422 for ``max(blob1)`` (``cannot use the String
type as argument 1``) and for ``if`` with branches of different kinds.

| Expression | Kind |
|---|---|
| ``lower(blob1)`` | a String |
| ``count()``, ``double1 * 2`` | a number |
| ``now()``, ``timestamp - INTERVAL '1' DAY``, ``toDateTime(blob1, 'UTC')`` | a time |
| ``toDateTime(blob1, 'Europe/Berlin')`` | a time with a time zone |
| ``topK(3)(blob1)`` | an array |
| ``min(timestamp)``, ``argMax(blob1, double1)`` | the kind of its first argument |
| ``if(double1 > 0, blob1, '')`` | the kind of its branches |
| ``bitAnd(double1, 1)``, ``blob1 = 'a'`` | not known |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sqlglot import exp

from aggregator.analytics_engine.types import DATASET_COLUMNS, Kind, column_type

if TYPE_CHECKING:
    from collections.abc import Sequence

Kinds = Mapping[str, Kind | None]
"""The kind of each column or alias that an expression may name; None if it is not known."""

DATASET_KINDS: Kinds = {name: column_type(type_).kind for name, type_ in DATASET_COLUMNS.items()}

_KINDS = {
    Kind.STRING: "lower lowerUTF8 toLower upper upperUTF8 toUpper substring format formatDateTime bin hex",
    Kind.NUMBER: """
        count countIf sum sumIf avg avgIf quantileExactWeighted quantileWeighted length position extract intDiv
        log ln pow floor ceil toYear toMonth toDayOfMonth toDayOfWeek toHour toMinute toSecond toUnixTimestamp toYYYYMM
        toUInt8 toUInt32""",
    Kind.TIME: "now today toDateTime",
    Kind.ARRAY: "topK topKWeighted",
}
_KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names.split()}

_LIKE_FIRST_ARGUMENT = """
    min max argMin argMax first_value last_value toStartOfInterval toStartOfYear toStartOfMonth toStartOfWeek
    toStartOfDay toStartOfHour toStartOfFifteenMinutes toStartOfTenMinutes toStartOfFiveMinutes toStartOfMinute"""
_OTHERS = """
    if empty startsWith endsWith bitAnd bitCount bitHammingDistance bitNot bitOr bitRotateLeft bitRotateRight
    bitShiftLeft bitShiftRight bitTest bitXor"""
_IN_CAPITALS = frozenset({"COUNT", "SUM", "AVG", "MIN", "MAX", "NOW", "IF"})

_RETURNS_ITS_ARGUMENT = frozenset(_LIKE_FIRST_ARGUMENT.split())

FUNCTIONS = _KIND_OF.keys() | _RETURNS_ITS_ARGUMENT | {*_OTHERS.split()} | _IN_CAPITALS
"""Functions of Cloudflare's SQL reference, in its spelling, and in capitals where its examples use them.

``round`` is missing: the API returns 422 for it, although the reference lists it.
"""

_NO_STRINGS = {
    **dict.fromkeys(["min", "max", "sum", "sumIf", "avg", "avgIf"], 1),
    "quantileExactWeighted": 2,
    "quantileWeighted": 3,
}
"""Functions that take no String, and the number of leading arguments to which this applies."""

_WITHOUT_ARGUMENTS = frozenset({"count", "now", "today"})
_ARGUMENTS_BEFORE_ZONE = {"toDateTime": 1, "toStartOfInterval": 2}
_UTC = frozenset({"UTC", "Etc/UTC"})


def kind_of(node: exp.Expr, kinds: Kinds) -> Kind | None:
    """The kind of an expression that may name these columns and aliases; None if it is not known."""
    match node:
        case exp.Column():
            return kinds.get(node.name)
        case exp.Literal():
            return Kind.STRING if node.is_string else Kind.NUMBER
        case exp.Paren() | exp.Neg():
            return kind_of(node.this, kinds)
        case exp.Add() | exp.Sub() | exp.Mul() | exp.Div() | exp.Mod():
            return _kind_of_arithmetic(node, kinds)
    return _kind_of_call(*_call(node), kinds)


def problem_with_kinds(node: exp.Expr, kinds: Kinds) -> tuple[str, str] | None:
    """The part of a call that Analytics Engine refuses, and the reason; None if it accepts its arguments."""
    name, arguments = _call(node)
    if name and not arguments and name not in _WITHOUT_ARGUMENTS:
        return f"function {name}", "it needs an argument"
    if Kind.STRING in {kind_of(argument, kinds) for argument in arguments[: _NO_STRINGS.get(name, 0)]}:
        return f"function {name}", "it takes no String. To select a String use argMin or argMax by a number or time"
    if name == "if":
        known = {kind_of(branch, kinds) for branch in arguments[1:]} - {None}
        branches = sorted({str(Kind.TIME if kind is Kind.ZONED_TIME else kind) for kind in known})
        if len(branches) > 1:
            return "function if", f"its branches have different types, {' and '.join(branches)}"
    return None


def _kind_of_arithmetic(node: exp.Expr, kinds: Kinds) -> Kind | None:
    left, right = (kind_of(side, kinds) for side in (node.this, node.expression))
    for kind in (left, right):
        if kind in {Kind.TIME, Kind.ZONED_TIME}:
            return kind if (left, right).count(None) else None  # the other operand is an interval
    return Kind.NUMBER


def _kind_of_call(name: str, arguments: Sequence[exp.Expr], kinds: Kinds) -> Kind | None:
    if name == "if":
        return next(filter(None, (kind_of(branch, kinds) for branch in arguments[1:])), None)
    zone = arguments[_ARGUMENTS_BEFORE_ZONE.get(name, len(arguments)) :]
    if zone:
        return Kind.TIME if isinstance(zone[0], exp.Literal) and zone[0].name in _UTC else Kind.ZONED_TIME
    if name in _RETURNS_ITS_ARGUMENT and arguments:
        return kind_of(arguments[0], kinds)
    return _KIND_OF.get(name)


def _call(node: exp.Expr) -> tuple[str, list[exp.Expr]]:
    """Name and arguments of a function call; an empty name for any other expression."""
    match node:
        case exp.Extract():  # extract(YEAR FROM timestamp)
            return "extract", [node.expression]
        case exp.StrPosition():  # position(':' IN blob1)
            return "position", [node.this]
        case exp.ParameterizedAgg():  # quantileExactWeighted(0.5)(double1, _sample_interval)
            return node.name, list(node.args["params"])
        case exp.Anonymous() | exp.AnonymousAggFunc():
            return node.name.lower() if node.name in _IN_CAPITALS else node.name, list(node.expressions)
    return "", []
