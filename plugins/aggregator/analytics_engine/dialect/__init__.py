"""The SQL dialect of Workers Analytics Engine: `parse` checks a query before it is sent, `bind` writes literals.

The SQL API accepts a subset of ClickHouse's SQL. The check accepts what Cloudflare's SQL reference lists, without what
is known to fail in practice: ``round``, ``SELECT *``, ``ORDER BY`` of anything but a selected alias, ``max`` of a
String, ``if`` with branches of different types. Sub-queries are accepted, because the reference lists them, but users
report that they fail.

A query passes four checks:

1. `literals`: the text is valid Unicode of limited size.
2. `tokens`: its words are in the dialect, as they are written. A parser rewrites (``a ? b : c`` becomes ``if``), and
   two parsers may disagree about where a string ends.
3. `clauses`: they come once each, in order.
4. `tree`: what sqlglot's ClickHouse parser reads has the shape, names and types of the dialect (`functions`).

Sources: https://developers.cloudflare.com/analytics/analytics-engine/sql-reference/ and its sibling ``sql-api/``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlglot import exp
from sqlglot.errors import ParseError
from sqlglot.tokenizer_core import Token, TokenType

from aggregator.analytics_engine.dialect.clauses import split_levels
from aggregator.analytics_engine.dialect.functions import FUNCTIONS
from aggregator.analytics_engine.dialect.literals import Parameter, bind, check_characters
from aggregator.analytics_engine.dialect.tokens import AnalyticsEngineSql, tokenize
from aggregator.analytics_engine.dialect.tree import check_selects, dataset_columns, nested_selects, time_conditions
from aggregator.analytics_engine.errors import DialectError, refusal
from aggregator.analytics_engine.types import UNREADABLE, Kind

if TYPE_CHECKING:
    from aggregator.analytics_engine.dialect.clauses import Level

__all__ = [
    "FORMATS",
    "FUNCTIONS",
    "MAX_QUERY_BYTES",
    "SHOW_TABLES",
    "SHOW_TIMEZONE",
    "SHOW_TIMEZONES",
    "DialectError",
    "Parameter",
    "Query",
    "bind",
    "parse",
]

MAX_QUERY_BYTES = 64 * 1024
"""Longest query, in bytes of UTF-8. The limit is this project's; queries of scheduled jobs are far shorter."""

FORMATS = frozenset({"JSON", "JSONEachRow", "TabSeparated"})
"""Result formats (Cloudflare: Statements, FORMAT clause)."""

SHOW_TABLES, SHOW_TIMEZONES, SHOW_TIMEZONE = "SHOW TABLES", "SHOW TIMEZONES", "SHOW TIMEZONE"
"""The statements besides SELECT, without their ``FORMAT``."""

_SHOW = (SHOW_TABLES, SHOW_TIMEZONES, SHOW_TIMEZONE)
_AFTER_LIMIT_ALL = frozenset({TokenType.OFFSET, TokenType.FORMAT, TokenType.R_PAREN})


@dataclass(frozen=True)
class Query:
    """A statement that passed all checks.

    Attributes:
        text: The statement as written, without its ``FORMAT`` clause and without ``LIMIT ALL``, which limits nothing.
        format: Its result format, one of `FORMATS`.
        dataset: The dataset that it, or its innermost sub-query, reads; None if it reads none.
        probes: Queries that count the rows of the dataset, with ``FORMAT JSON``: under its WHERE clause, then under the
            conditions on ``timestamp`` alone. Empty if it reads no dataset.
        columns: Columns (not aliases) of the dataset that its SELECT clause names, in order of appearance.
        unreadable: The kind of result that `AnalyticsEngineResult` cannot read; None if it can read all.
    """

    text: str
    format: str
    dataset: str | None = None
    probes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    unreadable: Kind | None = None


def parse(sql: str) -> Query:
    """Check a statement and split it into its parts.

    Args:
        sql: One complete statement, literals bound, with an explicit ``FORMAT`` (sources disagree on the default).

    Raises:
        DialectError: Analytics Engine's SQL API would not accept it. The text says what and why, and quotes no literal.
    """
    check_characters("text", sql)
    if (size := len(sql.encode())) > MAX_QUERY_BYTES:
        raise refusal("text", f"{size} bytes are more than {MAX_QUERY_BYTES}")
    try:
        return _parse(sql)
    except RecursionError:
        raise refusal("text", "nested too deeply") from None


def _parse(sql: str) -> Query:
    tokens = tokenize(sql)
    for limit, word, following in zip(tokens, tokens[1:], tokens[2:], strict=False):
        is_limit_all = limit.token_type is TokenType.LIMIT and word.text.upper() == "ALL"
        if is_limit_all and following.token_type in _AFTER_LIMIT_ALL:
            return _parse(f"{sql[: limit.start]} {sql[word.end + 1 :]}")
    statement, end = tokens[:-2], tokens[-2:]
    show = " ".join(token.text.upper() for token in statement)
    if show not in _SHOW and not (tokens and tokens[0].token_type is TokenType.SELECT):
        raise refusal("statement", f"only SELECT, {', '.join(_SHOW)} exist, each with FORMAT")
    formats = {format_.upper(): format_ for format_ in FORMATS}
    if not statement or end[0].token_type is not TokenType.FORMAT or end[1].text.upper() not in formats:
        raise refusal("FORMAT", f"end the query with FORMAT and one of {', '.join(sorted(FORMATS))}")
    format_ = formats[end[1].text.upper()]
    return Query(show, format_) if show in _SHOW else _parse_select(sql[: end[0].start], statement, format_)


def _parse_select(sql: str, tokens: list[Token], format_: str) -> Query:
    levels = split_levels(tokens)
    selects = nested_selects(_tree(tokens, sql), len(levels))
    kinds = check_selects(selects, levels)
    source = levels[-1].get(TokenType.FROM)
    return Query(
        text=sql,
        format=format_,
        dataset=source[1].text if source else None,
        probes=_probes(sql, levels[-1], selects[-1]),
        columns=dataset_columns(selects[-1]),
        unreadable=next((kind for kind in UNREADABLE if kind in kinds.values()), None),
    )


def _probes(sql: str, innermost: Level, select: exp.Select) -> tuple[str, ...]:
    if TokenType.FROM not in innermost:
        return ()
    keyword, dataset = innermost[TokenType.FROM]
    end = innermost.get(TokenType.WHERE, [dataset])[-1].end
    conditions = [sql[keyword.start : end + 1], f"FROM {dataset.text} {time_conditions(select)}".rstrip()]
    return tuple(dict.fromkeys(f"SELECT count() AS n {condition} FORMAT JSON" for condition in conditions))


def _tree(tokens: list[Token], sql: str) -> exp.Select:
    try:
        (tree,) = AnalyticsEngineSql().parser().parse(tokens, sql)
    except ParseError:
        # Without the parser's own text: it quotes the query.
        raise refusal("text", "not a complete SELECT statement") from None
    if not isinstance(tree, exp.Select):
        raise refusal("text", "not one SELECT statement")
    return tree
