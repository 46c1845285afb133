r"""Tokens of the dialect: the words it has, and how they are written.

sqlglot's tokenizer accepts all of ClickHouse. These checks accept less:

| Written | Check |
|---|---|
| ``a ? b : c``, ``a::int``, ``CASE``, ``x[1]`` | refused: the token is not in the dialect |
| ``'it\'s'``, ``1e5``, ``blob1 == 'a'`` | refused: another spelling of a token that is in the dialect |
| ``/* … */``, ``# …``, a no-break space | refused: only blanks and ``--`` comments separate tokens |
| ``toString(double1)``, ``Count()`` | refused: not a function of the reference, or not its spelling |
| ``SELECT blob1 AS end … GROUP BY end`` | accepted: a keyword of ClickHouse that is a name here |
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

from sqlglot.dialects.clickhouse import ClickHouse
from sqlglot.errors import TokenError
from sqlglot.tokenizer_core import Token, TokenType

from aggregator.analytics_engine.dialect.errors import refusal
from aggregator.analytics_engine.dialect.functions import FUNCTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence


def _kinds(names: str) -> frozenset[TokenType]:
    return frozenset(TokenType[name] for name in names.split())


_CLAUSES = "SELECT FROM WHERE GROUP_BY HAVING ORDER_BY LIMIT OFFSET FORMAT"
CLAUSES = [TokenType[name] for name in _CLAUSES.split()]
"""Keywords that begin a clause, in the order of the clauses."""

WORDS = _kinds("VAR TIMESTAMP DATE TEXT JSON")
"""Names, and types of ClickHouse that are names here."""

_OPERATORS = _kinds("ALIAS DISTINCT AND OR NOT IN BETWEEN LIKE ILIKE ASC DESC TRUE FALSE INTERVAL")
_TOKENS = (
    WORDS | _OPERATORS | {*CLAUSES}
    | _kinds("STRING NUMBER ALL L_PAREN R_PAREN COMMA PLUS DASH STAR SLASH MOD EQ NEQ LT LTE GT GTE")
)  # fmt: skip
_QUOTED = _kinds("STRING IDENTIFIER")

_RESERVED = (_OPERATORS | {*CLAUSES} | _kinds("CASE WITH OVER NULL JOIN UNION INTERSECT EXCEPT")) - _kinds("FORMAT")
_RESERVED_WORDS = frozenset({"GROUP", "ORDER", "BY"})
"""Words that cannot be aliases. ClickHouse has many more keywords, such as ``time``, ``row`` and ``end``, which can."""

_NEVER_RENAMED = _RESERVED | WORDS | _QUOTED

_REASONS = {
    kind: reason
    for names, reason in {
        "JOIN LEFT RIGHT INNER CROSS ARRAY": "a query reads one dataset, JOIN does not exist",
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
_NOT_IN_REFERENCE = "not in Cloudflare's SQL reference"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SPELLINGS = {
    TokenType.STRING: (
        re.compile(r"'(?:[^'\\]|''|\\\\)*+'"),
        "double every backslash and every quote, servers disagree on other escapes",
    ),
    TokenType.NUMBER: (re.compile(r"[0-9]+(?:\.[0-9]+)?"), "write digits, and a dot only between digits"),
    TokenType.EQ: (re.compile("="), "write ="),
    **dict.fromkeys(WORDS, (_NAME, "a name consists of ASCII letters, digits and _")),
}
"""The accepted spelling of tokens that ClickHouse spells in several ways."""

_BETWEEN_TOKENS = re.compile(r"(?:[ \t\r\n]|--[^\n]*(?:\n|\Z))*+")


def tokenize(sql: str) -> tuple[list[Token], list[Token]]:
    """Split a statement into checked tokens.

    Args:
        sql: The statement.

    Returns:
        The tokens, in which keywords of ClickHouse that are names here are ordinary words; and the same for sqlglot's
        parser, which would take such a word for the keyword again: there they are quoted identifiers.

    Raises:
        DialectError: A token is not in the dialect, or is spelled differently.
    """
    try:
        written = ClickHouse().tokenize(sql)
    except TokenError:
        raise refusal("text", "a quote or a comment is not closed") from None
    aliases = _aliases(written)
    names = {index for index in range(len(written)) if _is_name(index, written, aliases)}
    tokens, parsed = (
        [_changed(token, kind) if index in names else token for index, token in enumerate(written)]
        for kind in (TokenType.VAR, TokenType.IDENTIFIER)
    )
    _check_spelling(sql, tokens)
    for token, following in pairwise(tokens):
        _check_pair(token, following)
    return tokens, parsed


def is_call(token: Token, following: Token) -> bool:
    """Whether the first token is the name of a function that is called."""
    return token.token_type in WORDS | {TokenType.FORMAT} and following.token_type is TokenType.L_PAREN


def _changed(token: Token, kind: TokenType) -> Token:
    return Token(kind, token.text, token.line, token.col, token.start, token.end, token.comments)


def _aliases(tokens: Sequence[Token]) -> set[str]:
    """Names that the query introduces with AS."""
    introduced = [
        word
        for before, word in pairwise(tokens)
        if before.token_type is TokenType.ALIAS and word.token_type not in _QUOTED and _NAME.fullmatch(word.text)
    ]
    for word in introduced:
        if word.token_type in _RESERVED or word.text.upper() in _RESERVED_WORDS:
            raise refusal(f"alias {word.text[:40]}", "the word is reserved, choose another", word)
    return {word.text for word in introduced}


def _is_name(index: int, tokens: Sequence[Token], aliases: set[str]) -> bool:
    """Whether a keyword of ClickHouse is the name of an alias or a dataset here."""
    token, before = tokens[index], tokens[index - 1].token_type
    if token.token_type in _NEVER_RENAMED:
        return False
    if before is TokenType.ALIAS:
        return token.text in aliases
    is_function = index + 1 < len(tokens) and tokens[index + 1].token_type is TokenType.L_PAREN
    is_format_clause = token.token_type is TokenType.FORMAT and index == len(tokens) - 2
    is_limit_all = token.token_type is TokenType.ALL and before is TokenType.LIMIT
    if is_function or is_format_clause or is_limit_all:
        return False
    return token.text in aliases or (before is TokenType.FROM and _NAME.fullmatch(token.text) is not None)


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
    if is_call(token, following) and token.text not in FUNCTIONS:
        spelled = next((name for name in FUNCTIONS if name.lower() == token.text.lower()), None)
        reason = f"spell it {spelled}" if spelled else f"{_NOT_IN_REFERENCE}, or known to fail"
        raise refusal(f"function {token.text[:40]}", reason, token)
    if kind is TokenType.INTERVAL and not (next_kind is TokenType.STRING and following.text.isdecimal()):
        raise refusal("INTERVAL", "write it as INTERVAL '1' DAY", token)
    if next_kind is TokenType.ALL and kind is not TokenType.LIMIT:
        raise refusal("`ALL`", "it follows LIMIT only", following)
    if kind is TokenType.COMMA and next_kind in {*CLAUSES, TokenType.R_PAREN}:
        raise refusal("comma", "nothing follows it", token)
