r"""Tokens of the dialect: the words it has, and how they are written.

sqlglot's ClickHouse has hundreds of keywords. `AnalyticsEngineSql` keeps those of the dialect and those that an error
text explains. All others, such as ``time``, ``row`` and ``end``, are names. The checks of its tokens accept less:

| Written | Check |
|---|---|
| ``a ? b : c``, ``a::int``, ``CASE``, ``x[1]`` | refused: the token is not in the dialect |
| ``'it\'s'``, ``1e5``, ``blob1 == 'a'`` | refused: another spelling of a token that is in the dialect |
| ``/* … */``, ``# …``, a no-break space | refused: only blanks and ``--`` comments separate tokens |
| ``toString(double1)``, ``Count()`` | refused: not a function of the reference, or not its spelling |
| ``SELECT blob1 AS 1``, ``INTERVAL 1 DAY``, ``GROUP BY LIMIT 9`` | refused: another token must follow |
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

from sqlglot.dialects.clickhouse import ClickHouse
from sqlglot.errors import TokenError
from sqlglot.parsers.clickhouse import ClickHouseParser
from sqlglot.tokenizer_core import Token, TokenType

from aggregator.analytics_engine.dialect.functions import FUNCTIONS
from aggregator.analytics_engine.errors import refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

CLAUSES = [TokenType[name] for name in ("SELECT", "FROM", "WHERE", "GROUP_BY", "HAVING", "ORDER_BY", "LIMIT", "OFFSET")]
"""Keywords that begin a clause, in the order of the clauses."""


def _kinds(names: str) -> frozenset[TokenType]:
    return frozenset(TokenType[name] for name in names.split())


_BEFORE_A_VALUE = {*CLAUSES} | _kinds("""
    ALIAS DISTINCT AND OR NOT IN BETWEEN LIKE ILIKE INTERVAL COMMA PLUS DASH SLASH MOD EQ NEQ LT LTE GT GTE""")
_AFTER_A_VALUE = {*CLAUSES} | _kinds("ALIAS COMMA R_PAREN FORMAT")
_TOKENS = _BEFORE_A_VALUE | _kinds("VAR STRING NUMBER TRUE FALSE L_PAREN R_PAREN STAR ASC DESC")
_REASONS = {
    kind: reason
    for names, reason in {
        "JOIN": "a query reads one dataset, JOIN does not exist",
        "UNION INTERSECT EXCEPT": "a query reads one dataset, UNION does not exist",
        "CASE": "CASE does not exist, use if(condition, then, else)",
        "WITH": "WITH does not exist, neither for a CTE nor as a modifier",
        "OVER": "window functions do not exist",
        "SEMICOLON": "send one statement, without a semicolon",
        "IDENTIFIER": "names are not quoted",
        "DOT": "names are not qualified, and a number needs a digit before its dot",
        "PLACEHOLDER": "bind parameters do not exist, use bind()",
        "NULL": "NULL does not exist, an absent blob is '' and an absent double 0",
    }.items()
    for kind in _kinds(names)
}
_KEYWORDS = _TOKENS | _REASONS.keys()
_NOT_IN_REFERENCE = "not in Cloudflare's SQL reference"
_RESERVED_WORDS = frozenset({"GROUP", "ORDER", "BY"})
_SPELLINGS = {
    TokenType.STRING: (
        re.compile(r"'(?:[^'\\]|''|\\\\)*+'"),
        "double every backslash and every quote, servers disagree on other escapes",
    ),
    TokenType.NUMBER: (re.compile(r"[0-9]+(?:\.[0-9]+)?"), "write digits, and a dot only between digits"),
    TokenType.EQ: (re.compile("="), "write ="),
    TokenType.VAR: (re.compile(r"[A-Za-z_][A-Za-z0-9_]*"), "a name consists of ASCII letters, digits and _"),
}
"""The accepted spelling of tokens that ClickHouse spells in several ways."""

_BETWEEN_TOKENS = re.compile(r"(?:[ \t\r\n]|--[^\n]*(?:\n|\Z))*+")


class AnalyticsEngineSql(ClickHouse):
    """ClickHouse with fewer keywords."""

    class Tokenizer(ClickHouse.Tokenizer):
        """Reads all other keywords as names. The parser uses it as well."""

        KEYWORDS: ClassVar[dict[str, TokenType]] = {
            written: kind
            for written, kind in ClickHouse.Tokenizer.KEYWORDS.items()
            if not written[0].isalpha() or kind in _KEYWORDS
        }

    class Parser(ClickHouseParser):
        """Finds no keyword in the text of a name, and keeps every function as it is written."""

        TEXT_MATCH_EXCLUDED_TOKENS = ClickHouseParser.TEXT_MATCH_EXCLUDED_TOKENS | {TokenType.VAR}
        FUNCTIONS: ClassVar[dict[str, Any]] = {}
        NO_PAREN_FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {}
        FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {
            name: ClickHouseParser.FUNCTION_PARSERS[name] for name in ("EXTRACT", "POSITION")
        }


def tokenize(sql: str) -> list[Token]:
    """Split a statement into tokens, or raise DialectError if one is not in the dialect or is spelled differently.

    ``FORMAT`` is a keyword before the last word only.
    """
    try:
        tokens = AnalyticsEngineSql().tokenize(sql)
    except TokenError:
        raise refusal("text", "a quote or a comment is not closed") from None
    _check_spelling(sql, tokens)
    for index, token in enumerate(tokens[-2:-1], len(tokens) - 2):
        if token.text.upper() == "FORMAT":
            tokens[index] = Token(TokenType.FORMAT, token.text, token.line, token.col, token.start, token.end)
    for token, following in pairwise(tokens):
        _check_pair(token, following)
    return tokens


def _check_spelling(sql: str, tokens: Sequence[Token]) -> None:
    position = 0
    for token in tokens:
        _check_gap(sql, position, token.start)
        position = token.end + 1
        _check_token(token, sql[token.start : position])
    _check_gap(sql, position, len(sql))


def _check_gap(sql: str, start: int, end: int) -> None:
    if not _BETWEEN_TOKENS.fullmatch(sql, start, end):
        raise refusal("text", "only spaces, line breaks and -- comments may separate words")


def _check_token(token: Token, written: str) -> None:
    kind = token.token_type
    if kind not in _TOKENS:
        shown = written[:40] if written == token.text else kind.name  # no text from quotes of any kind
        raise refusal(f"`{shown}`", _REASONS.get(kind, _NOT_IN_REFERENCE), token)
    spelling, reason = _SPELLINGS.get(kind, (None, ""))
    if spelling and not spelling.fullmatch(written):
        raise refusal(kind.name, reason, token)


def _check_pair(token: Token, following: Token) -> None:
    kind, next_kind = token.token_type, following.token_type
    is_call = (kind, next_kind) == (TokenType.VAR, TokenType.L_PAREN)
    if is_call and token.text not in FUNCTIONS:
        spelled = next((name for name in FUNCTIONS if name.lower() == token.text.lower()), None)
        reason = f"spell it {spelled}" if spelled else f"{_NOT_IN_REFERENCE}, or known to fail"
        raise refusal(f"function {token.text[:40]}", reason, token)
    if kind is TokenType.ALIAS and (next_kind is not TokenType.VAR or following.text.upper() in _RESERVED_WORDS):
        raise refusal("AS", "a name follows it that is not a word of the dialect", token)
    if next_kind is TokenType.DISTINCT and kind is not TokenType.L_PAREN:
        raise refusal("DISTINCT", "it comes first in the arguments of a function", following)
    if kind is TokenType.INTERVAL and not (next_kind is TokenType.STRING and following.text.isdecimal()):
        raise refusal("INTERVAL", "write it as INTERVAL '1' DAY", token)
    is_empty_argument = (kind, next_kind) == (TokenType.L_PAREN, TokenType.COMMA)
    if (kind in _BEFORE_A_VALUE and next_kind in _AFTER_A_VALUE) or is_empty_argument:
        raise refusal(f"`{token.text}`", f"a value follows it, not `{following.text}`", token)
