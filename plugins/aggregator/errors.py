"""Transient or hard: the one place that decides (spec: shared parts)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta


class AggregatorError(Exception):
    """Base of every error this project raises on purpose.

    Its text says what was wrong, what was done about it, and what the reader can do now. It never holds a secret or a
    row's values.
    """


class TransientError(AggregatorError):
    """The same call may succeed later: it is retried.

    Args:
        message: What went wrong.
        retry_after: How long the other side asked to be left alone, if it said so.
    """

    def __init__(self, message: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class HardError(AggregatorError):
    """The same call will fail again: it is not retried."""
