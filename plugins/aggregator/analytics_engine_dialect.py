"""The SQL that Workers Analytics Engine accepts: a gate for queries, and the quoting of literals.

The SQL API takes a subset of ClickHouse's SQL. What it would refuse at night, this module refuses in a unit test and
before anything is sent (spec: shared parts). The gate allows what Cloudflare's SQL reference lists, minus what is
known to fail in practice (``round``, sub-queries, ``SELECT *``, ``ORDER BY`` of anything but a selected alias), and
refuses the rest, unknown things included.

A query is judged twice. Its *tokens* tell what was written: a parser forgives and rewrites (``a ? b : c`` becomes
``if``, ``a::int`` a cast), and two parsers may disagree about where a string ends. Its *tree*, from sqlglot's
ClickHouse parser, tells what it means: which name is a column, which an alias.

Sources: https://developers.cloudflare.com/analytics/analytics-engine/sql-reference/ and ``sql-api/`` beside it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING

from sqlglot import exp
from sqlglot.dialects.clickhouse import ClickHouse
from sqlglot.errors import ParseError, TokenError
from sqlglot.tokenizer_core import TokenType

from aggregator.errors import HardError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlglot.tokenizer_core import Token

Parameter = datetime | date | str | int | float | Decimal | bool
"""What `bind` can write as a literal."""

MAX_QUERY_BYTES = 64 * 1024
"""Longest query, in bytes of UTF-8. A limit of ours: no query of a scheduled job comes near it."""

FORMATS = frozenset({"JSON", "JSONEachRow", "TabSeparated"})
"""Result formats (Cloudflare: Statements, FORMAT clause)."""

COLUMNS = frozenset(
    {"dataset", "timestamp", "_sample_interval", "index1"}
    | {f"blob{number}" for number in range(1, 21)}
    | {f"double{number}" for number in range(1, 21)}
)
"""Columns of every dataset (Cloudflare: SQL API, table structure)."""

_FUNCTIONS = """
count sum avg min max countIf sumIf avgIf quantileExactWeighted argMin argMax first_value last_value topK topKWeighted
bitAnd bitCount bitHammingDistance bitNot bitOr bitRotateLeft bitRotateRight bitShiftLeft bitShiftRight bitTest bitXor
if bin hex intDiv log ln pow floor ceil
formatDateTime now today toDateTime toYear toMonth toDayOfMonth toDayOfWeek toHour toMinute toSecond toUnixTimestamp
toStartOfInterval toStartOfYear toStartOfMonth toStartOfWeek toStartOfDay toStartOfHour toStartOfFifteenMinutes
toStartOfTenMinutes toStartOfFiveMinutes toStartOfMinute toYYYYMM extract
length empty lower lowerUTF8 upper upperUTF8 startsWith endsWith position substring format toUInt8 toUInt32
"""
_CAPITALS = {"COUNT", "SUM", "AVG", "MIN", "MAX", "NOW", "IF"}
FUNCTIONS = frozenset(_FUNCTIONS.split()) | _CAPITALS
"""Functions of the reference, spelled as there and, the common ones, as in Cloudflare's examples.

``round`` is missing: it answers 422 in practice.
"""

SHOW_TABLES = "SHOW TABLES"
"""The only other statement, without its ``FORMAT``."""

INTERVAL_UNITS = frozenset({"YEAR", "MONTH", "DAY", "HOUR", "MINUTE", "SECOND"})
"""Units of ``INTERVAL`` and ``extract`` (Cloudflare: Literals)."""

_CLAUSES = {
    clause: order
    for order, clause in enumerate(
        [
            TokenType.SELECT,
            TokenType.FROM,
            TokenType.WHERE,
            TokenType.GROUP_BY,
            TokenType.HAVING,
            TokenType.ORDER_BY,
            TokenType.LIMIT,
            TokenType.OFFSET,
            TokenType.FORMAT,
        ]
    )
}

_NAMES = frozenset({TokenType.VAR, TokenType.TIMESTAMP, TokenType.DATE, TokenType.TEXT, TokenType.JSON})
"""Words that are names here, though some are types to ClickHouse."""

_SINGLE = {
    TokenType.FROM: _NAMES,
    TokenType.LIMIT: frozenset({TokenType.NUMBER}),
    TokenType.OFFSET: frozenset({TokenType.NUMBER}),
    TokenType.FORMAT: _NAMES,
}
"""Clauses of exactly one word, and what it may be."""

_TOKENS = (
    _CLAUSES.keys()
    | _NAMES
    | {
        *(TokenType.STRING, TokenType.NUMBER, TokenType.TRUE, TokenType.FALSE, TokenType.INTERVAL),
        *(TokenType.L_PAREN, TokenType.R_PAREN, TokenType.COMMA, TokenType.ALIAS, TokenType.DISTINCT),
        *(TokenType.PLUS, TokenType.DASH, TokenType.STAR, TokenType.SLASH, TokenType.MOD),
        *(TokenType.EQ, TokenType.NEQ, TokenType.LT, TokenType.LTE, TokenType.GT, TokenType.GTE),
        *(TokenType.AND, TokenType.OR, TokenType.NOT, TokenType.IN, TokenType.BETWEEN, TokenType.LIKE),
        *(TokenType.ILIKE, TokenType.ASC, TokenType.DESC),
    }
)

_REASONS = {
    **dict.fromkeys(
        [TokenType.JOIN, TokenType.LEFT, TokenType.RIGHT, TokenType.INNER, TokenType.CROSS, TokenType.ARRAY],
        "a query reads one dataset, JOIN does not exist",
    ),
    **dict.fromkeys(
        [TokenType.UNION, TokenType.INTERSECT, TokenType.EXCEPT], "a query reads one dataset, UNION does not exist"
    ),
    TokenType.CASE: "CASE does not exist, use if(condition, then, else)",
    TokenType.WITH: "WITH does not exist: no CTE, no modifier",
    TokenType.OVER: "window functions do not exist",
    TokenType.SEMICOLON: "send one statement, without a semicolon",
    TokenType.IDENTIFIER: "names are not quoted",
    TokenType.DOT: "names are not qualified, and a number needs a digit before its dot",
    TokenType.PLACEHOLDER: "bind parameters do not exist, see bind()",
    TokenType.NULL: "NULL does not exist, an absent blob is '' and an absent double 0",
}

_PLAIN_NODES = frozenset(
    {
        *(exp.And, exp.Or, exp.Not, exp.Neg, exp.Paren, exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod),
        *(exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.Between, exp.Like, exp.ILike),
        *(exp.From, exp.Table, exp.Where, exp.Having, exp.Limit, exp.Offset),
        *(exp.Identifier, exp.Literal, exp.Boolean, exp.Var),
    }
)
"""Nodes that a tree may hold besides functions."""

_PARTS: dict[type[exp.Expr], frozenset[str]] = {
    exp.Alias: frozenset({"this", "alias"}),
    exp.Column: frozenset({"this"}),
    exp.Distinct: frozenset({"expressions"}),
    exp.Group: frozenset({"expressions"}),
    exp.In: frozenset({"this", "expressions"}),
    exp.Interval: frozenset({"this", "unit"}),
    exp.Order: frozenset({"expressions"}),
    exp.Ordered: frozenset({"this", "desc", "nulls_first"}),
    exp.Select: frozenset(["expressions", "from_", "where", "group", "having", "order", "limit", "offset", "format"]),
}
"""Nodes of which ClickHouse knows more forms than the reference, and the parts of the form that is there."""

_CLICKHOUSE = ClickHouse()
_BETWEEN_TOKENS = re.compile(r"(?:[ \t\r\n]|--[^\n]*(?:\n|\Z))*+")
_SHOW_TABLES = re.compile(r"\s*SHOW\s+TABLES\s+FORMAT\s+(\w+)\s*", re.IGNORECASE | re.ASCII)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WRITTEN = {
    TokenType.STRING: (
        re.compile(r"'(?:[^'\\]|''|\\\\)*+'"),
        "a backslash is written as two and a quote as two, other escapes are not understood alike everywhere",
    ),
    TokenType.NUMBER: (re.compile(r"[0-9]+(?:\.[0-9]+)?"), "write digits, and a dot only between digits"),
    TokenType.EQ: (re.compile("="), "write ="),
    **dict.fromkeys(_NAMES, (_NAME, "a name is made of ASCII letters, digits and _")),
}
"""How some tokens have to be written where ClickHouse knows other ways."""
_TEMPLATE = re.compile(
    r"(?P<string>'(?:[^'\\]|''|\\.)*+')|(?P<comment>--[^\n]*+)|%\((?P<name>\w+)\)s|(?P<percent>%%)|(?P<wrong>['%])",
    re.DOTALL,
)
_DATETIMES = (datetime(1970, 1, 1, tzinfo=UTC), datetime(2106, 2, 7, 6, 28, 15, tzinfo=UTC))  # of a 32-bit DateTime
_SIZES = (1e-15, 1e15)


class DialectError(HardError):
    """The query, or a value for it, is not something that Workers Analytics Engine's SQL API takes."""


@dataclass(frozen=True)
class Query:
    """A statement that the gate let through.

    Attributes:
        text: The statement as written, without its ``FORMAT`` clause.
        format: Its result format, one of `FORMATS`.
        dataset: The dataset it reads; None if it reads none.
        probe: ``SELECT count() AS n`` over the same dataset and condition, as JSON; None if it reads no dataset.
        columns: Columns (not aliases) that its ``SELECT`` clause names, in order of appearance.
    """

    text: str
    format: str
    dataset: str | None = None
    probe: str | None = None
    columns: tuple[str, ...] = ()


def check(sql: str) -> None:
    """Refuse ``sql`` unless Workers Analytics Engine's SQL API would accept it.

    Args:
        sql: One complete statement, literals bound, with an explicit ``FORMAT`` (sources disagree on the default).

    Raises:
        DialectError: Says what is refused and why; never quotes a literal.
    """
    parse(sql)


def parse(sql: str) -> Query:
    """Judge ``sql`` as `check` does, and take it apart.

    Args:
        sql: One complete statement, literals bound, with an explicit ``FORMAT``.

    Returns:
        The statement's parts, as written.

    Raises:
        DialectError: Says what is refused and why; never quotes a literal.
    """
    _check_text(sql)
    if show := _SHOW_TABLES.fullmatch(sql):
        return Query(text=SHOW_TABLES, format=_known_format(show[1]))
    try:
        tokens = _CLICKHOUSE.tokenize(sql)
    except TokenError:
        raise _refusal("text", "a quote or a comment is not closed") from None
    _check_tokens(sql, tokens)
    clauses = _clauses(tokens)
    try:
        (tree,) = _CLICKHOUSE.parser().parse(tokens, sql)
    except (ParseError, RecursionError) as error:
        # Not the parser's own words for it: they quote the query.
        reason = "nested too deeply" if isinstance(error, RecursionError) else "not a complete SELECT statement"
        raise _refusal("text", reason) from None
    if not isinstance(tree, exp.Select):
        raise _refusal("statement", "only SELECT and SHOW TABLES exist")
    columns = _check_tree(tree, tokens)
    ending = clauses[TokenType.FORMAT]
    text, result_format = sql[: ending[0].start], _known_format(ending[1].text)
    if TokenType.FROM not in clauses:
        return Query(text, result_format)
    source = [part for clause in (TokenType.FROM, TokenType.WHERE) for part in clauses.get(clause, [])]
    return Query(
        text=text,
        format=result_format,
        dataset=source[1].text,
        probe=f"SELECT count() AS n {sql[source[0].start : source[-1].end + 1]} FORMAT JSON",
        columns=columns,
    )


def bind(sql: str, parameters: Mapping[str, Parameter]) -> str:
    r"""Write ``parameters`` into ``sql`` as literals; the API has no bind parameters of its own.

    Placeholders are psycopg's: ``%(name)s``, and ``%%`` for a percent sign. They stand where a literal may stand: not
    inside quotes. Comments are left alone.

    - ``str``: quoted; a quote is doubled and a backslash is doubled, which ends at the same place whether the other
      side takes ``\`` as an escape (ClickHouse does) or not (standard SQL).
    - ``datetime``: aware, whole seconds, 1970 to 2106; ``toDateTime('…')`` in UTC. ``date``: its midnight UTC.
    - ``int``, ``float``, ``Decimal``: in digits, as the reference knows no exponents; in parentheses if negative, as
      ``x -%(y)s`` must not become a comment. An ``int`` has to fit 64 bits. The API computes in doubles: a ``Decimal``
      is written as the nearest one. Other sizes than 1e-15 to 1e15 are refused: ClickHouse reads a long row of digits
      as another number (300 zeros as 30).
    - ``bool``: ``true`` or ``false``.

    Args:
        sql: Text with placeholders, trusted.
        parameters: Values by name, not trusted.

    Returns:
        The complete text.

    Raises:
        DialectError: A placeholder without a value, a value without a placeholder, a value that has no literal, or a
            percent sign or quote that is on its own. Never quotes a value.
    """
    used = set()

    def replace(match: re.Match[str]) -> str:
        if match["comment"]:
            return match[0]
        if match["percent"]:
            return "%"
        if match["wrong"]:
            raise _refusal("template", "a quote is not closed" if match[0] == "'" else "write %% for a percent sign")
        if match["string"]:
            if "%" in match[0].replace("%%", ""):
                raise _refusal("template", "inside quotes write %% for a percent sign; a placeholder stands outside")
            return match[0].replace("%%", "%")
        name = match["name"]
        if name not in parameters:
            raise _refusal(f"parameter {name}", "the placeholder has no value")
        used.add(name)
        return _literal(name, parameters[name])

    bound = _TEMPLATE.sub(replace, sql)
    if unused := parameters.keys() - used:
        raise _refusal(f"parameter {', '.join(sorted(unused))}", "no placeholder uses it")
    return bound


def placeholders(sql: str) -> frozenset[str]:
    """Names of the placeholders that `bind` would replace in ``sql``."""
    return frozenset(match["name"] for match in _TEMPLATE.finditer(sql) if match["name"])


def _refusal(what: str, why: str, token: Token | None = None) -> DialectError:
    where = f" in line {token.line}" if token else ""
    return DialectError(f"Not the SQL of Workers Analytics Engine: {what}{where}: {why}. Nothing was sent.")


def _check_text(sql: str) -> None:
    if "\0" in sql:
        raise _refusal("text", "it holds a NUL character")
    try:
        size = len(sql.encode())
    except UnicodeEncodeError:
        raise _refusal("text", "it is not valid Unicode") from None
    if size > MAX_QUERY_BYTES:
        raise _refusal("text", f"{size} bytes are more than {MAX_QUERY_BYTES}")


def _known_format(name: str) -> str:
    if name not in FORMATS:
        raise _refusal(f"FORMAT {name}", f"known are {', '.join(sorted(FORMATS))}")
    return name


def _check_tokens(sql: str, tokens: Sequence[Token]) -> None:
    """Allow the vocabulary, as written."""
    position = 0
    for token in tokens:
        _check_gap(sql, position, token.start)
        position = token.end + 1
        _check_token(token, sql[token.start : position])
    _check_gap(sql, position, len(sql))
    for token, following in pairwise(tokens):
        if _is_call(token, following) and token.text not in FUNCTIONS:
            spelled = next((name for name in FUNCTIONS if name.lower() == token.text.lower()), None)
            why = f"spell it {spelled}" if spelled else "not in Cloudflare's SQL reference, or known to fail"
            raise _refusal(f"function {token.text[:40]}", why, token)
        if token.token_type is TokenType.INTERVAL and not (
            following.token_type is TokenType.STRING and following.text.isdecimal()
        ):
            raise _refusal("INTERVAL", "write it as INTERVAL '1' DAY", token)
        if token.token_type is TokenType.COMMA and following.token_type in {*_CLAUSES, TokenType.R_PAREN}:
            raise _refusal("comma", "nothing follows it", token)


def _check_gap(sql: str, start: int, end: int) -> None:
    if not _BETWEEN_TOKENS.fullmatch(sql, start, end):
        raise _refusal("text", "only spaces, line breaks and -- comments may separate words")


def _check_token(token: Token, written: str) -> None:
    kind = token.token_type
    if kind not in _TOKENS:
        shown = written[:40] if written == token.text else kind.name  # not what stands in quotes of any kind
        raise _refusal(f"`{shown}`", _REASONS.get(kind, "not in Cloudflare's SQL reference"), token)
    form, why = _WRITTEN.get(kind, (None, ""))
    if form and not form.fullmatch(written):
        raise _refusal(kind.name, why, token)


def _is_call(token: Token, following: Token) -> bool:
    return token.token_type in _NAMES | {TokenType.FORMAT} and following.token_type is TokenType.L_PAREN


def _clauses(tokens: Sequence[Token]) -> dict[TokenType, list[Token]]:
    """Split at the clause keywords; they come once each, in order, outside parentheses."""
    clauses: dict[TokenType, list[Token]] = {TokenType.SELECT: []}
    if not tokens or tokens[0].token_type is not TokenType.SELECT:
        raise _refusal("statement", "only SELECT and SHOW TABLES exist")
    clause, depth = TokenType.SELECT, 0
    for token, following in pairwise([*tokens, tokens[-1]]):
        kind = token.token_type
        depth += (kind is TokenType.L_PAREN) - (kind is TokenType.R_PAREN)
        if kind in _CLAUSES and token is not tokens[0] and not _is_call(token, following):
            if depth and kind is not TokenType.FROM:  # extract(YEAR FROM …)
                raise _refusal(token.text.upper(), "no sub-queries, and no clauses inside parentheses", token)
            if not depth and _CLAUSES[kind] <= _CLAUSES[clause]:
                raise _refusal(token.text.upper(), "the clause is repeated, or stands after a later one", token)
            clause = clause if depth else kind
        clauses.setdefault(clause, []).append(token)
    for kind, allowed in _SINGLE.items():
        words = clauses.get(kind)
        if words and [token.token_type in allowed for token in words] != [False, True]:
            raise _refusal(kind.name, "exactly one name or number follows it, and no sub-query", words[0])
    if TokenType.FORMAT not in clauses:
        raise _refusal("FORMAT", "end the query with FORMAT JSON, sources disagree on the default")
    return clauses


def _check_tree(select: exp.Select, tokens: Sequence[Token]) -> tuple[str, ...]:
    """Allow the shape and the names; return the columns of the SELECT clause."""
    if not select.expressions:
        raise _refusal("SELECT", "nothing is selected")
    selected = [item for item in select.expressions if isinstance(item, exp.Alias)]
    aliases = {item.alias for item in selected}
    written = sum(token.token_type is TokenType.ALIAS for token in tokens)
    if not len(aliases) == len(selected) == written:
        raise _refusal("alias", "a selected expression gets one name of its own, with AS")
    functions = 0
    for node in select.walk():
        _check_shape(node)
        _check_names(node, aliases)
        functions += _is_function(node)
    if functions != sum(_is_call(token, following) for token, following in pairwise(tokens)):
        raise _refusal("expression", "something in it means more to ClickHouse than the reference says")
    named = (column.name for item in select.expressions for column in item.find_all(exp.Column, bfs=False))
    return tuple(dict.fromkeys(name for name in named if name in COLUMNS))


def _is_function(node: exp.Expr) -> bool:
    return isinstance(node, exp.Func) and not isinstance(node, exp.Connector)


def _check_shape(node: exp.Expr) -> None:
    if isinstance(node, exp.Star):
        raise _refusal("`*`", "write count() without it, and name the columns")
    if parts := _PARTS.get(type(node)):
        if odd := {name for name, part in node.args.items() if part} - parts:
            raise _refusal(f"{node.key.upper()} with {', '.join(sorted(odd))}", "not in Cloudflare's SQL reference")
    elif type(node) not in _PLAIN_NODES and not _is_function(node):
        raise _refusal(node.key.upper(), "not in Cloudflare's SQL reference")


def _check_names(node: exp.Expr, aliases: set[str]) -> None:
    match node:
        case exp.Column() if node.name not in COLUMNS:
            if node.name not in aliases:
                raise _refusal(f"column {node.name[:40]}", "neither a column of a dataset nor an alias of this query")
            if node.find_ancestor(exp.Where):
                raise _refusal(f"alias {node.name[:40]}", "WHERE comes before the aliases are known, name the column")
        case exp.Var() if isinstance(node.parent, exp.Interval | exp.Extract) and (
            node.name.upper() not in INTERVAL_UNITS
        ):
            raise _refusal(f"unit {node.name[:40]}", f"known are {', '.join(sorted(INTERVAL_UNITS))}")
        case exp.Ordered() if not (isinstance(node.this, exp.Column) and node.this.name in aliases):
            raise _refusal("ORDER BY", "order by an alias that the query selects, a column's own name fails")


def _literal(name: str, value: Parameter) -> str:
    what = f"parameter {name}"
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _text_literal(what, value)
        case datetime():
            return _datetime_literal(what, value)
        case date():
            return _datetime_literal(what, datetime.combine(value, time(), UTC))
        case int() | float() | Decimal():
            return _number_literal(what, value)
        case _:
            raise _refusal(what, f"{type(value).__name__} has no literal")


def _text_literal(what: str, value: str) -> str:
    if "\0" in value:
        raise _refusal(what, "it holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _refusal(what, "it is not valid Unicode") from None
    return "'{}'".format(value.replace("\\", "\\\\").replace("'", "''"))


def _number_literal(what: str, value: float | Decimal) -> str:
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise _refusal(what, "it does not fit 64 bits")
        number = str(int(value))
    else:
        smallest, largest = _SIZES
        if value != 0 and not smallest <= abs(float(value)) <= largest:  # false for NaN, too
            raise _refusal(what, f"its size is not between {smallest} and {largest}")
        number = format(Decimal(repr(float(value))), "f")
    return f"({number})" if number.startswith("-") else number


def _datetime_literal(what: str, value: datetime) -> str:
    if value.utcoffset() is None:
        raise _refusal(what, "a time needs its zone")
    if value.microsecond:
        raise _refusal(what, "a time has whole seconds")
    earliest, latest = _DATETIMES
    if not earliest <= value <= latest:
        raise _refusal(what, "a time lies between 1970 and 2106")
    return f"toDateTime('{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}')"
