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

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlglot import exp
from sqlglot.dialects.clickhouse import ClickHouse
from sqlglot.errors import ParseError
from sqlglot.tokenizer_core import Token, TokenType

from aggregator.analytics_engine.dialect.clauses import limit_all, only_statements, split_levels
from aggregator.analytics_engine.dialect.errors import DialectError, refusal
from aggregator.analytics_engine.dialect.functions import FUNCTIONS
from aggregator.analytics_engine.dialect.literals import Parameter, bind, check_characters, placeholders
from aggregator.analytics_engine.dialect.tokens import tokenize
from aggregator.analytics_engine.dialect.tree import check_selects, dataset_columns, nested_selects, time_conditions
from aggregator.analytics_engine.types import UNREADABLE, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    "placeholders",
]

MAX_QUERY_BYTES = 64 * 1024
"""Longest query, in bytes of UTF-8. The limit is this project's; queries of scheduled jobs are far shorter."""

FORMATS = frozenset({"JSON", "JSONEachRow", "TabSeparated"})
"""Result formats (Cloudflare: Statements, FORMAT clause)."""

SHOW_TABLES, SHOW_TIMEZONES, SHOW_TIMEZONE = "SHOW TABLES", "SHOW TIMEZONES", "SHOW TIMEZONE"
"""The statements besides SELECT, without their ``FORMAT``."""

_SHOW = re.compile(r"\s*SHOW\s+(TABLES|TIMEZONES|TIMEZONE)\s+FORMAT\s+(\w+)\s*", re.IGNORECASE | re.ASCII)


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

    Returns:
        The statement's parts.

    Raises:
        DialectError: Analytics Engine's SQL API would not accept it. The text says what and why, and quotes no literal.
    """
    _check_text(sql)
    if show := _SHOW.fullmatch(sql):
        return Query(text=f"SHOW {show[1].upper()}", format=_known_format(show[2]))
    try:
        return _parse_select(sql)
    except RecursionError:
        raise refusal("text", "nested too deeply") from None


def _check_text(sql: str) -> None:
    check_characters("text", sql)
    size = len(sql.encode())
    if size > MAX_QUERY_BYTES:
        raise refusal("text", f"{size} bytes are more than {MAX_QUERY_BYTES}")


def _known_format(name: str) -> str:
    known = {format_.lower(): format_ for format_ in FORMATS}
    if name.lower() not in known:
        raise refusal(f"FORMAT {name[:40]}", f"known are {', '.join(sorted(FORMATS))}")
    return known[name.lower()]


def _parse_select(sql: str) -> Query:
    tokens, parsed = tokenize(sql)
    levels = split_levels(tokens)
    if TokenType.FORMAT not in levels[0]:
        raise refusal("FORMAT", "end the query with FORMAT JSON, sources disagree on the default")
    no_limits = {token.start for level in levels for token in limit_all(level)}
    tree = _tree([token for token in parsed if token.start not in no_limits], sql)
    selects = nested_selects(tree, len(levels))
    kinds = check_selects(selects, levels)
    keyword, format_name = levels[0][TokenType.FORMAT]
    source = levels[-1].get(TokenType.FROM)
    return Query(
        text=_without(sql[: keyword.start], [token for token in tokens if token.start in no_limits]),
        format=_known_format(format_name.text),
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
        (tree,) = ClickHouse().parser().parse(tokens, sql)
    except ParseError:
        # Without the parser's own text: it quotes the query.
        raise refusal("text", "not a complete SELECT statement") from None
    if not isinstance(tree, exp.Select):
        raise only_statements()
    return tree


def _without(sql: str, tokens: Sequence[Token]) -> str:
    for token in reversed(tokens):
        sql = sql[: token.start] + sql[token.end + 1 :]
    return sql
