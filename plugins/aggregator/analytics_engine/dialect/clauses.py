"""Clauses of a query: which there are, in which order, and at which level of sub-queries.

``SELECT avg(n) AS mean FROM (SELECT count() AS n FROM t WHERE double1 > 1) LIMIT 9 FORMAT JSON`` has two levels:

- ``SELECT avg(n) AS mean``, ``FROM ()``, ``LIMIT 9``, ``FORMAT JSON``
- ``SELECT count() AS n``, ``FROM t``, ``WHERE double1 > 1``
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from sqlglot.tokenizer_core import Token, TokenType

from aggregator.analytics_engine.dialect.errors import DialectError, refusal
from aggregator.analytics_engine.dialect.tokens import CLAUSES, WORDS, is_call

if TYPE_CHECKING:
    from collections.abc import Sequence

Level = dict[TokenType, list[Token]]
"""The clauses of one SELECT: each keyword and what follows it, by the keyword's type."""

_DEEPEST_SUBQUERY = 10

_ONE_WORD = {
    TokenType.FROM: WORDS,
    TokenType.LIMIT: frozenset({TokenType.NUMBER, TokenType.ALL}),
    TokenType.OFFSET: frozenset({TokenType.NUMBER}),
    TokenType.FORMAT: WORDS,
}
"""Clauses of exactly one word, and what it may be."""

_SUBQUERY = [TokenType.FROM, TokenType.L_PAREN, TokenType.R_PAREN]


def only_statements() -> DialectError:
    """The error for a statement of another sort."""
    return refusal("statement", "only SELECT, SHOW TABLES, SHOW TIMEZONES and SHOW TIMEZONE exist")


def split_levels(tokens: Sequence[Token]) -> list[Level]:
    """The clauses of the query, of the sub-query in its FROM, and so on.

    Args:
        tokens: Of the whole statement.

    Returns:
        The outermost level first.

    Raises:
        DialectError: A clause is missing, repeated, out of order, or where none may be.
    """
    levels: list[Level] = []
    while len(levels) < _DEEPEST_SUBQUERY:
        outer, inner = _split_subquery(tokens)
        levels.append(_split_clauses(outer, in_subquery=bool(levels)))
        if not inner:
            return levels
        tokens = inner
    raise refusal("FROM", "nested too deeply", tokens[0])


def limit_all(level: Level) -> list[Token]:
    """The tokens of ``LIMIT ALL``, which limits nothing; none if the level has no such clause."""
    limit = level.get(TokenType.LIMIT, [])
    return limit if [token.token_type for token in limit] == [TokenType.LIMIT, TokenType.ALL] else []


def _split_subquery(tokens: Sequence[Token]) -> tuple[list[Token], list[Token]]:
    """The tokens with ``FROM ()`` in place of a sub-query, and those of the sub-query."""
    depth = 0
    for start, token in enumerate(tokens):
        depth += _nesting(token)
        kinds = [following.token_type for following in tokens[start : start + 3]]
        if depth == 0 and kinds == [TokenType.FROM, TokenType.L_PAREN, TokenType.SELECT]:
            end = _end_of_subquery(tokens, start + 2)
            return [*tokens[: start + 2], *tokens[end:]], [*tokens[start + 2 : end]]
    return [*tokens], []


def _end_of_subquery(tokens: Sequence[Token], start: int) -> int:
    depth = 1
    for index in range(start, len(tokens)):
        depth += _nesting(tokens[index])
        if depth == 0:
            return index
    raise refusal("FROM", "the parenthesis of the sub-query is not closed", tokens[start])


def _nesting(token: Token) -> int:
    return (token.token_type is TokenType.L_PAREN) - (token.token_type is TokenType.R_PAREN)


def _split_clauses(tokens: Sequence[Token], *, in_subquery: bool) -> Level:
    if not tokens or tokens[0].token_type is not TokenType.SELECT:
        raise only_statements()
    clauses: Level = {TokenType.SELECT: [tokens[0]]}
    clause, depth = TokenType.SELECT, 0
    for token, following in pairwise([*tokens[1:], tokens[-1]]):
        kind = token.token_type
        depth += _nesting(token)
        if kind in CLAUSES and not is_call(token, following):
            if depth and kind is not TokenType.FROM:  # extract(YEAR FROM …)
                raise refusal(token.text.upper(), "no sub-queries but in FROM, no clauses inside parentheses", token)
            if not depth and CLAUSES.index(kind) <= CLAUSES.index(clause):
                raise refusal(token.text.upper(), "the clause is repeated, or comes after a later one", token)
            if in_subquery and kind is TokenType.FORMAT:
                raise refusal("FORMAT", "it ends the whole query, not a sub-query", token)
            clause = clause if depth else kind
        clauses.setdefault(clause, []).append(token)
    for kind, allowed in _ONE_WORD.items():
        kinds = [token.token_type for token in clauses.get(kind, [])]
        if kinds and kinds != _SUBQUERY and not (len(kinds) == 2 and kinds[1] in allowed):  # noqa: PLR2004
            reason = "exactly one name or number follows it, or one sub-query without a name"
            raise refusal(kind.name, reason, clauses[kind][0])
    return clauses
