"""Clauses of a query: which there are, in which order, and at which level of sub-queries.

``SELECT avg(n) AS mean FROM (SELECT count() AS n FROM t WHERE double1 > 1) LIMIT 9`` has two levels:

- ``SELECT avg(n) AS mean``, ``FROM ()``, ``LIMIT 9``
- ``SELECT count() AS n``, ``FROM t``, ``WHERE double1 > 1``
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlglot.tokenizer_core import Token, TokenType

from aggregator.analytics_engine.dialect.tokens import CLAUSES
from aggregator.analytics_engine.errors import refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

Level = dict[TokenType, list[Token]]
"""The clauses of one SELECT: each keyword and what follows it, by the keyword's type."""

_DEEPEST_SUBQUERY = 10
_ONE_WORD = {TokenType.FROM: TokenType.VAR, TokenType.LIMIT: TokenType.NUMBER, TokenType.OFFSET: TokenType.NUMBER}
"""Clauses of exactly one word, and what it is."""

_SUBQUERY = [TokenType.FROM, TokenType.L_PAREN, TokenType.R_PAREN]


def split_levels(tokens: Sequence[Token]) -> list[Level]:
    """The clauses of the query, of the sub-query in its FROM, and so on.

    Raises:
        DialectError: A clause is repeated, out of order, or where none may be.
    """
    levels: list[Level] = []
    while len(levels) < _DEEPEST_SUBQUERY:
        outer, tokens = _split_subquery(tokens)
        levels.append(_split_clauses(outer))
        if not tokens:
            return levels
    raise refusal("FROM", "nested too deeply", tokens[0])


def _split_subquery(tokens: Sequence[Token]) -> tuple[Sequence[Token], Sequence[Token]]:
    """The tokens with ``FROM ()`` in place of a sub-query, and those of the sub-query."""
    depth, start = 0, None
    for index, token in enumerate(tokens):
        depth += _nesting(token)
        kinds = [following.token_type for following in tokens[index : index + 3]]
        if start is None and depth == 0 and kinds == [TokenType.FROM, TokenType.L_PAREN, TokenType.SELECT]:
            start = index + 2
        elif start is not None and depth == 0 and index >= start:
            return [*tokens[:start], *tokens[index:]], tokens[start:index]
    if start is not None:
        raise refusal("FROM", "the parenthesis of the sub-query is not closed", tokens[start])
    return tokens, []


def _nesting(token: Token) -> int:
    return (token.token_type is TokenType.L_PAREN) - (token.token_type is TokenType.R_PAREN)


def _split_clauses(tokens: Sequence[Token]) -> Level:
    clauses: Level = {TokenType.SELECT: [tokens[0]]}
    clause, depth = TokenType.SELECT, 0
    for token in tokens[1:]:
        kind = token.token_type
        depth += _nesting(token)
        if kind in CLAUSES:
            if depth and kind is not TokenType.FROM:  # extract(YEAR FROM …)
                raise refusal(token.text.upper(), "no sub-queries but in FROM, no clauses inside parentheses", token)
            if not depth and CLAUSES.index(kind) <= CLAUSES.index(clause):
                raise refusal(token.text.upper(), "the clause is repeated, or comes after a later one", token)
            clause = clause if depth else kind
        clauses.setdefault(clause, []).append(token)
    if depth:
        raise refusal("text", "a parenthesis is not closed, or not opened")
    for kind, word in _ONE_WORD.items():
        kinds = [token.token_type for token in clauses.get(kind, [])]
        if kinds and kinds not in ([kind, word], _SUBQUERY):
            reason = "exactly one name or number follows it, or one sub-query without a name"
            raise refusal(kind.name, reason, clauses[kind][0])
    return clauses
