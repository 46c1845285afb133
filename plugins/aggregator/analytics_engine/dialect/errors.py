"""The error that every check of the dialect raises."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aggregator.core.errors import PermanentError

if TYPE_CHECKING:
    from sqlglot.tokenizer_core import Token


class DialectError(PermanentError):
    """Analytics Engine's SQL API does not accept the query or a parameter."""


def refusal(part: str, reason: str, token: Token | None = None) -> DialectError:
    """The error for one part of a query.

    Args:
        part: What is refused, such as ``column blob21``. Never a literal.
        reason: Why, or what to write in its place.
        token: Where the part is, if it is one token.
    """
    line = f" in line {token.line}" if token else ""
    return DialectError(
        f"The query is not valid Analytics Engine SQL: {part}{line}: {reason}. Nothing was sent. Correct the query."
    )
