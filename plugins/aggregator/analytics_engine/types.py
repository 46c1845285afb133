"""Types of the expressions in a query for Workers Analytics Engine, as far as they are known before it is sent.

Analytics Engine judges types. It answers 422 to ``max(blob1)`` (``cannot use the String type as argument 1``) and to
``if`` with branches of unlike types. ClickHouse, whose dialect it shares, accepts both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlglot import exp

if TYPE_CHECKING:
    from collections.abc import Mapping

    Types = Mapping[str, str | None]

STRING, NUMBER, TIME, ZONED_TIME, ARRAY = "a String", "a number", "a time", "a time with a time zone", "an array"

UNREADABLE = (ARRAY, ZONED_TIME)
"""Types of results that ``AnalyticsEngineResult`` cannot read. A local time can be ambiguous."""

TYPES_OF_COLUMNS: dict[str, str | None] = {
    **dict.fromkeys(["dataset", "index1", *(f"blob{number}" for number in range(1, 21))], STRING),
    **dict.fromkeys(["_sample_interval", *(f"double{number}" for number in range(1, 21))], NUMBER),
    "timestamp": TIME,
}
"""Columns of every dataset (Cloudflare: SQL API, table structure)."""

_STRINGS = "lower lowerUTF8 toLower upper upperUTF8 toUpper substring format formatDateTime bin hex"
_NUMBERS = """
count countIf sum sumIf avg avgIf quantileExactWeighted quantileWeighted length position extract intDiv log ln pow floor
ceil toYear toMonth toDayOfMonth toDayOfWeek toHour toMinute toSecond toUnixTimestamp toYYYYMM toUInt8 toUInt32
"""
_RETURNS = {
    **dict.fromkeys(_STRINGS.split(), STRING),
    **dict.fromkeys(_NUMBERS.split(), NUMBER),
    **dict.fromkeys(["now", "today", "toDateTime"], TIME),
    **dict.fromkeys(["topK", "topKWeighted"], ARRAY),
}
"""What a function returns, where that does not depend on its arguments."""

_LIKE_FIRST_ARGUMENT = """
min max argMin argMax first_value last_value toStartOfInterval toStartOfYear toStartOfMonth toStartOfWeek toStartOfDay
toStartOfHour toStartOfFifteenMinutes toStartOfTenMinutes toStartOfFiveMinutes toStartOfMinute
"""
_RETURNS_ITS_ARGUMENT = frozenset(_LIKE_FIRST_ARGUMENT.split())

_VALUES = {
    "min": 1,
    "max": 1,
    "sum": 1,
    "sumIf": 1,
    "avg": 1,
    "avgIf": 1,
    "quantileExactWeighted": 2,
    "quantileWeighted": 3,
}
"""Functions that take no String, and how many of their arguments that is said of."""

_ZONE_AFTER = {"toDateTime": 1, "toStartOfInterval": 2}
"""Functions that take a time zone after so many arguments."""

_UTC = frozenset({"UTC", "Etc/UTC"})

_NAMES: dict[type[exp.Expr], str] = {
    exp.ArgMax: "argMax",
    exp.ArgMin: "argMin",
    exp.Avg: "avg",
    exp.Ceil: "ceil",
    exp.Count: "count",
    exp.Extract: "extract",
    exp.FirstValue: "first_value",
    exp.Floor: "floor",
    exp.Format: "format",
    exp.Hex: "hex",
    exp.If: "if",
    exp.LastValue: "last_value",
    exp.Length: "length",
    exp.Ln: "ln",
    exp.Log: "log",
    exp.Lower: "lower",
    exp.Max: "max",
    exp.Min: "min",
    exp.Pow: "pow",
    exp.StrPosition: "position",
    exp.Substring: "substring",
    exp.Sum: "sum",
    exp.TimeToStr: "formatDateTime",
    exp.TimestampTrunc: "toStartOfDay",  # and the others that round to a unit
    exp.Upper: "upper",
}
"""Functions for which sqlglot has a class of its own. The others keep their name."""


def type_of(node: exp.Expr, types: Types) -> str | None:
    """The type of an expression.

    Args:
        node: The expression.
        types: Types of the columns and aliases that it may name.

    Returns:
        One of the constants above; None if it is another one or not known.
    """
    match node:
        case exp.Column():
            return types.get(node.name)
        case exp.Literal():
            return STRING if node.is_string else NUMBER
        case exp.Paren() | exp.Neg():
            return type_of(node.this, types)
        case exp.Add() | exp.Sub() | exp.Mul() | exp.Div() | exp.Mod():
            return _type_of_arithmetic(node, types)
    return _type_of_function(*_function(node), types)


def problem_of_types(node: exp.Expr, types: Types) -> tuple[str, str] | None:
    """What Analytics Engine refuses about the types in an expression, without what is nested in it.

    Args:
        node: The expression.
        types: As for `type_of`.

    Returns:
        What is refused, and why; None if nothing is.
    """
    name, arguments = _function(node)
    if STRING in {type_of(argument, types) for argument in arguments[: _VALUES.get(name, 0)]}:
        return f"function {name}", "it takes no String. Of Strings there are argMin and argMax, beside a number or time"
    if name == "if":
        found = {type_of(branch, types) for branch in arguments[1:]} - {None}
        branches = sorted({TIME if branch == ZONED_TIME else str(branch) for branch in found})
        if len(branches) > 1:
            return "function if", f"its branches have unlike types, {' and '.join(branches)}"
    return None


def _type_of_arithmetic(node: exp.Expr, types: Types) -> str | None:
    left, right = (type_of(side, types) for side in (node.this, node.expression))
    for type_ in (left, right):
        if type_ in {TIME, ZONED_TIME}:
            return type_ if (left, right).count(None) else None  # the other side is an interval
    return NUMBER


def _type_of_function(name: str, arguments: list[exp.Expr], types: Types) -> str | None:
    if name == "if":
        return next(filter(None, (type_of(branch, types) for branch in arguments[1:])), None)
    zone = arguments[_ZONE_AFTER[name] :] if name in _ZONE_AFTER else []
    if zone:
        return TIME if isinstance(zone[0], exp.Literal) and zone[0].name in _UTC else ZONED_TIME
    if name in _RETURNS_ITS_ARGUMENT and arguments:
        return type_of(arguments[0], types)
    return _RETURNS.get(name)


def _function(node: exp.Expr) -> tuple[str, list[exp.Expr]]:
    """Name and arguments of a function; no name for anything else."""
    if isinstance(node, exp.ParameterizedAgg):  # quantileExactWeighted(0.5)(double1, _sample_interval)
        return node.name, list(node.args["params"])
    if isinstance(node, exp.Anonymous | exp.AnonymousAggFunc):
        return node.name, list(node.expressions)
    if isinstance(node, exp.If):
        return "if", [part for part in (node.this, node.args.get("true"), node.args.get("false")) if part]
    return _NAMES.get(type(node), ""), [node.this] if isinstance(node.this, exp.Expr) else []
