"""The SQL that Workers Analytics Engine accepts: a gate for queries, and the quoting of literals.

The SQL API takes a subset of ClickHouse's SQL. What it would refuse at night, this module refuses in a unit test and
before anything is sent (spec: shared parts). The gate allows what Cloudflare's SQL reference lists, minus what is
known to fail in practice: ``round``, ``SELECT *``, ``ORDER BY`` of anything but a selected alias, ``max`` of a String,
``if`` of unlike types. It refuses the rest, unknown things included. Avoid sub-queries: the reference lists them, but
users report that they fail.

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
from sqlglot.tokenizer_core import Token, TokenType

from aggregator.analytics_engine.types import TYPES_OF_COLUMNS, UNREADABLE, problem_of_types, type_of
from aggregator.core.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Parameter = datetime | date | str | int | float | Decimal | bool
"""What `bind` can write as a literal."""

MAX_QUERY_BYTES = 64 * 1024
"""Longest query, in bytes of UTF-8. A limit of ours: no query of a scheduled job comes near it."""

FORMATS = frozenset({"JSON", "JSONEachRow", "TabSeparated"})
"""Result formats (Cloudflare: Statements, FORMAT clause)."""

COLUMNS = frozenset(TYPES_OF_COLUMNS)
"""Columns of every dataset (Cloudflare: SQL API, table structure)."""

_FUNCTIONS = """
count sum avg min max countIf sumIf avgIf quantileExactWeighted quantileWeighted argMin argMax
first_value last_value topK topKWeighted
bitAnd bitCount bitHammingDistance bitNot bitOr bitRotateLeft bitRotateRight bitShiftLeft bitShiftRight bitTest bitXor
if bin hex intDiv log ln pow floor ceil
formatDateTime now today toDateTime toYear toMonth toDayOfMonth toDayOfWeek toHour toMinute toSecond toUnixTimestamp
toStartOfInterval toStartOfYear toStartOfMonth toStartOfWeek toStartOfDay toStartOfHour toStartOfFifteenMinutes
toStartOfTenMinutes toStartOfFiveMinutes toStartOfMinute toYYYYMM extract
length empty lower lowerUTF8 toLower upper upperUTF8 toUpper startsWith endsWith position substring format
toUInt8 toUInt32
"""
_CAPITALS = {"COUNT", "SUM", "AVG", "MIN", "MAX", "NOW", "IF"}
FUNCTIONS = frozenset(_FUNCTIONS.split()) | _CAPITALS
"""Functions of the reference, spelled as there and, the common ones, as in Cloudflare's examples.

``round`` is missing: it answers 422 in practice.
"""

SHOW_TABLES, SHOW_TIMEZONES, SHOW_TIMEZONE = "SHOW TABLES", "SHOW TIMEZONES", "SHOW TIMEZONE"
"""The only other statements, without their ``FORMAT``."""

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

_RESERVED = (_CLAUSES.keys() - {TokenType.FORMAT}) | {
    *(TokenType.ALIAS, TokenType.DISTINCT, TokenType.AND, TokenType.OR, TokenType.NOT, TokenType.IN, TokenType.BETWEEN),
    *(TokenType.LIKE, TokenType.ILIKE, TokenType.ASC, TokenType.DESC, TokenType.TRUE, TokenType.FALSE),
    *(TokenType.INTERVAL, TokenType.CASE, TokenType.WITH, TokenType.OVER, TokenType.NULL, TokenType.JOIN),
    *(TokenType.UNION, TokenType.INTERSECT, TokenType.EXCEPT),
}
_RESERVED_WORDS = frozenset({"GROUP", "ORDER", "BY"})
_QUOTED = frozenset({TokenType.STRING, TokenType.IDENTIFIER})
"""Words that cannot be aliases. ClickHouse has many more keywords, such as ``time``, ``row`` and ``end``, which can."""

_SINGLE = {
    TokenType.FROM: _NAMES,
    TokenType.LIMIT: frozenset({TokenType.NUMBER, TokenType.ALL}),
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
        *(TokenType.ILIKE, TokenType.ASC, TokenType.DESC, TokenType.ALL),
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
    exp.Subquery: frozenset({"this"}),
    exp.Select: frozenset(["expressions", "from_", "where", "group", "having", "order", "limit", "offset", "format"]),
}
"""Nodes of which ClickHouse knows more forms than the reference, and the parts of the form that is there."""

_CLICKHOUSE = ClickHouse()
_DEEPEST_SUBQUERY = 10
_BETWEEN_TOKENS = re.compile(r"(?:[ \t\r\n]|--[^\n]*(?:\n|\Z))*+")
_SHOW = re.compile(r"\s*SHOW\s+(TABLES|TIMEZONES|TIMEZONE)\s+FORMAT\s+(\w+)\s*", re.IGNORECASE | re.ASCII)
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


class DialectError(PermanentError):
    """The query, or a value for it, is not something that Workers Analytics Engine's SQL API takes."""


@dataclass(frozen=True)
class Query:
    """A statement that the gate let through.

    Attributes:
        text: The statement as written, without its ``FORMAT`` clause and without ``LIMIT ALL``, which limits nothing.
        format: Its result format, one of `FORMATS`.
        dataset: The dataset it reads, if need be in a sub-query; None if it reads none.
        probe: ``SELECT count() AS n`` over the same dataset and the condition beside it, as JSON; None if it reads no
            dataset.
        where: The condition beside the dataset with its ``WHERE``, as written; empty if there is none.
        columns: Columns (not aliases) that its ``SELECT`` clause names, in order of appearance.
        unreadable: Why `AnalyticsEngineResult` cannot read its answer; None if it can.
    """

    text: str
    format: str
    dataset: str | None = None
    probe: str | None = None
    where: str = ""
    columns: tuple[str, ...] = ()
    unreadable: str | None = None


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
    if show := _SHOW.fullmatch(sql):
        return Query(text=f"SHOW {show[1].upper()}", format=_known_format(show[2]))
    try:
        written = _CLICKHOUSE.tokenize(sql)
    except TokenError:
        raise _refusal("text", "a quote or a comment is not closed") from None
    tokens, names = _with_names(written)
    _check_tokens(sql, tokens)
    levels = _levels(tokens)
    clauses = levels[0]
    if TokenType.FORMAT not in clauses:
        raise _refusal("FORMAT", "end the query with FORMAT JSON, sources disagree on the default")
    unlimited = [word for level in levels for word in level.get(TokenType.LIMIT, []) if _is_limit_all(level)]
    try:
        # As identifiers: the parser could take an ordinary word for ClickHouse's keyword again.
        parsed = [_renamed(token, TokenType.IDENTIFIER) if token.start in names else token for token in tokens]
        (tree,) = _CLICKHOUSE.parser().parse([token for token in parsed if token not in unlimited], sql)
    except (ParseError, RecursionError) as error:
        # Not the parser's own words for it: they quote the query.
        reason = "nested too deeply" if isinstance(error, RecursionError) else "not a complete SELECT statement"
        raise _refusal("text", reason) from None
    if not isinstance(tree, exp.Select):
        raise _refusal("statement", "only SELECT, SHOW TABLES, SHOW TIMEZONES and SHOW TIMEZONE exist")
    columns, unreadable = _check_tree(tree, levels)
    ending = clauses[TokenType.FORMAT]
    text = _without(sql[: ending[0].start], unlimited)
    result_format, innermost = _known_format(ending[1].text), levels[-1]
    if TokenType.FROM not in innermost:
        return Query(text, result_format, unreadable=unreadable)
    condition = innermost.get(TokenType.WHERE, [])
    source = [*innermost[TokenType.FROM], *condition]
    return Query(
        text=text,
        format=result_format,
        dataset=source[1].text,
        probe=f"SELECT count() AS n {sql[source[0].start : source[-1].end + 1]} FORMAT JSON",
        where=sql[condition[0].start : condition[-1].end + 1] if condition else "",
        columns=columns,
        unreadable=unreadable,
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
    known = {format_.lower(): format_ for format_ in FORMATS}
    if name.lower() not in known:
        raise _refusal(f"FORMAT {name[:40]}", f"known are {', '.join(sorted(FORMATS))}")
    return known[name.lower()]


def _with_names(tokens: Sequence[Token]) -> tuple[list[Token], set[int]]:
    """The tokens, with keywords of ClickHouse that are names here as ordinary words, and where these start."""
    introduced = [
        word
        for before, word in pairwise(tokens)
        if before.token_type is TokenType.ALIAS and _NAME.fullmatch(word.text) and word.token_type not in _QUOTED
    ]
    for word in introduced:
        if word.token_type in _RESERVED or word.text.upper() in _RESERVED_WORDS:
            raise _refusal(f"alias {word.text[:40]}", "SQL's grammar uses the word itself, choose another", word)
    aliases = {word.text for word in introduced}
    names = {
        token.start
        for position, token in enumerate(tokens)
        if token.token_type not in _RESERVED | _NAMES | _QUOTED and _is_name(position, tokens, aliases)
    }
    return [_renamed(token, TokenType.VAR) if token.start in names else token for token in tokens], names


def _is_name(position: int, tokens: Sequence[Token], aliases: set[str]) -> bool:
    """Whether a keyword is the name of an alias or a dataset here."""
    token, before = tokens[position], tokens[position - 1].token_type
    if before is TokenType.ALIAS:
        return token.text in aliases
    after = tokens[position + 1].token_type if position + 1 < len(tokens) else None
    is_format_clause = token.token_type is TokenType.FORMAT and position == len(tokens) - 2
    is_limit_all = token.token_type is TokenType.ALL and before is TokenType.LIMIT
    if after is TokenType.L_PAREN or is_format_clause or is_limit_all:
        return False
    return token.text in aliases or (before is TokenType.FROM and _NAME.fullmatch(token.text) is not None)


def _renamed(token: Token, kind: TokenType) -> Token:
    return Token(kind, token.text, token.line, token.col, token.start, token.end, token.comments)


def _is_limit_all(clauses: Mapping[TokenType, Sequence[Token]]) -> bool:
    return [word.token_type for word in clauses.get(TokenType.LIMIT, [])] == [TokenType.LIMIT, TokenType.ALL]


def _without(sql: str, tokens: Sequence[Token]) -> str:
    for token in reversed(tokens):
        sql = sql[: token.start] + sql[token.end + 1 :]
    return sql


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
        if following.token_type is TokenType.ALL and token.token_type is not TokenType.LIMIT:
            raise _refusal("`ALL`", "it follows LIMIT only", following)
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


def _levels(tokens: Sequence[Token]) -> list[dict[TokenType, list[Token]]]:
    """The clauses of the query, of the sub-query in its ``FROM``, and so on."""
    levels: list[dict[TokenType, list[Token]]] = []
    while len(levels) < _DEEPEST_SUBQUERY:
        outer, inner = _without_subquery(tokens)
        levels.append(_clauses(outer, in_subquery=bool(levels)))
        if not inner:
            return levels
        tokens = inner
    raise _refusal("FROM", "nested too deeply", tokens[0])


def _without_subquery(tokens: Sequence[Token]) -> tuple[list[Token], list[Token]]:
    """The tokens with ``FROM ()`` for a sub-query, and those of the sub-query."""
    depth = 0
    for start, (token, *following) in enumerate(zip(tokens, tokens[1:], tokens[2:], strict=False)):
        depth += _nesting(token)
        kinds = [token.token_type, *(word.token_type for word in following)]
        if depth == 0 and kinds == [TokenType.FROM, TokenType.L_PAREN, TokenType.SELECT]:
            for end in range(start + 2, len(tokens)):
                depth += _nesting(tokens[end])
                if depth < 0:
                    return [*tokens[: start + 2], *tokens[end:]], [*tokens[start + 2 : end]]
            raise _refusal("FROM", "the parenthesis of the sub-query is not closed", token)
    return [*tokens], []


def _nesting(token: Token) -> int:
    return (token.token_type is TokenType.L_PAREN) - (token.token_type is TokenType.R_PAREN)


def _clauses(tokens: Sequence[Token], *, in_subquery: bool) -> dict[TokenType, list[Token]]:
    """Split at the clause keywords; they come once each, in order, outside parentheses."""
    clauses: dict[TokenType, list[Token]] = {TokenType.SELECT: []}
    if not tokens or tokens[0].token_type is not TokenType.SELECT:
        raise _refusal("statement", "only SELECT, SHOW TABLES, SHOW TIMEZONES and SHOW TIMEZONE exist")
    clause, depth = TokenType.SELECT, 0
    for token, following in pairwise([*tokens, tokens[-1]]):
        kind = token.token_type
        depth += _nesting(token)
        if kind in _CLAUSES and token is not tokens[0] and not _is_call(token, following):
            if depth and kind is not TokenType.FROM:  # extract(YEAR FROM …)
                raise _refusal(token.text.upper(), "no sub-queries but in FROM, no clauses inside parentheses", token)
            if not depth and _CLAUSES[kind] <= _CLAUSES[clause]:
                raise _refusal(token.text.upper(), "the clause is repeated, or stands after a later one", token)
            if in_subquery and kind is TokenType.FORMAT:
                raise _refusal("FORMAT", "it ends the whole query, not a sub-query", token)
            clause = clause if depth else kind
        clauses.setdefault(clause, []).append(token)
    for kind, allowed in _SINGLE.items():
        words = clauses.get(kind)
        if words and [word.token_type for word in words] == [TokenType.FROM, TokenType.L_PAREN, TokenType.R_PAREN]:
            continue
        if words and [token.token_type in allowed for token in words] != [False, True]:
            raise _refusal(
                kind.name, "exactly one name or number follows it, or one sub-query without a name", words[0]
            )
    return clauses


def _check_tree(
    select: exp.Select, levels: Sequence[Mapping[TokenType, Sequence[Token]]]
) -> tuple[tuple[str, ...], str | None]:
    """Allow the shape and the names; return the columns of the innermost SELECT clause, and what cannot be read."""
    inner = select.args["from_"].this if select.args.get("from_") else None
    sources: Mapping[str, str | None] = TYPES_OF_COLUMNS
    columns = None
    if isinstance(inner, exp.Subquery) and len(levels) > 1 and isinstance(inner.this, exp.Select):
        columns, _ = _check_tree(inner.this, levels[1:])
        sources = _types(inner.this)
    elif len(levels) > 1:
        raise _refusal("FROM", "a sub-query is one SELECT")
    types = _check_level(select, [token for clause in levels[0].values() for token in clause], sources)
    select.meta["types"] = types
    if columns is None:
        named = (column.name for item in select.expressions for column in item.find_all(exp.Column, bfs=False))
        columns = tuple(dict.fromkeys(name for name in named if name in COLUMNS))
    selected = {type_of(item.unalias(), types) for item in select.expressions}
    return columns, next((type_ for type_ in UNREADABLE if type_ in selected), None)


def _types(select: exp.Select) -> dict[str, str | None]:
    """The columns that a sub-query gives to the query around it."""
    return {item.alias_or_name: type_of(item.unalias(), select.meta["types"]) for item in select.expressions}


def _check_level(
    select: exp.Select, tokens: Sequence[Token], sources: Mapping[str, str | None]
) -> Mapping[str, str | None]:
    """Judge one SELECT without its sub-query; return the types of the columns and aliases that it knows."""
    if not select.expressions:
        raise _refusal("SELECT", "nothing is selected")
    selected = [item for item in select.expressions if isinstance(item, exp.Alias)]
    aliases = {item.alias for item in selected}
    written = sum(token.token_type is TokenType.ALIAS for token in tokens)
    if not len(aliases) == len(selected) == written:
        raise _refusal("alias", "a selected expression gets one name of its own, with AS")
    nodes = [*select.walk(prune=lambda node: isinstance(node, exp.Subquery))]
    functions = 0
    for node in nodes:
        _check_shape(node)
        _check_names(node, aliases, sources)
        functions += _is_function(node)
    if functions != sum(_is_call(token, following) for token, following in pairwise(tokens)):
        raise _refusal("expression", "something in it means more to ClickHouse than the reference says")
    types = dict(sources)
    for item in selected:
        types.setdefault(item.alias, type_of(item.this, types))
    for node in nodes:
        if problem := problem_of_types(node, types):
            raise _refusal(*problem)
    return types


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


def _check_names(node: exp.Expr, aliases: set[str], sources: Mapping[str, str | None]) -> None:
    match node:
        case exp.Column() if node.name not in sources:
            if node.name not in aliases:
                raise _refusal(
                    f"column {node.name[:40]}", "neither a column of what it reads nor an alias of this query"
                )
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
