"""The specification of an upsert, its source and its result."""

from __future__ import annotations

from dataclasses import asdict, astuple, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import psycopg


@dataclass(frozen=True)
class UpsertSpec:
    """A table, and how rows are written to it (spec: SqlUpsertOperator).

    Names are exact: they are neither unquoted nor folded to lower case. Columns that the source does not have keep
    their values in stored rows, and get their defaults in new rows.

    Attributes:
        table: ``schema.table``; partitioned or not.
        key: The columns of a unique index. If one of them can be null, the index must be ``NULLS NOT DISTINCT``.
        touch: Columns set to the transaction's time when a row is inserted or updated (``updated_at``).
    """

    table: str
    key: Sequence[str]
    touch: Sequence[str] = ()


@dataclass(frozen=True)
class Query:
    """Rows that a query returns. Of rows with equal keys the last one is stored.

    Attributes:
        text: One SELECT whose columns are named like the table's. Its result must not change if it runs again in the
            same transaction.
        parameters: Values for its ``%(name)s`` placeholders; a literal ``%`` is written ``%%``.
        isolate_by: Column of the key whose values divide the rows into groups. A group that cannot be computed or
            stored does not stop the others.
        groups: As for :func:`aggregator.postgres.upsert.compute`. Without it, a query that cannot be computed fails as
            a whole.
    """

    text: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    isolate_by: str | None = None
    groups: str | None = None


@dataclass(frozen=True)
class Rows:
    """Rows from Python. They are read once and in constant memory. Of rows with equal keys the last one is stored.

    Values are converted to the type of their column where nothing is lost: ISO 8601 strings to dates, timestamps
    (naive ones are UTC) and UUIDs; numbers and strings to numeric; dicts and lists to JSON.

    Attributes:
        columns: The column of each value.
        values: The values of each row. Reading them must not use the connection of the upsert.
    """

    columns: Sequence[str]
    values: Iterable[Sequence[Any]]


Source = Query | Rows


@dataclass(frozen=True)
class UpsertCounts:
    """Counts of the source's rows by outcome; the four add up to all rows.

    Attributes:
        inserted: Rows with a new key.
        updated: Rows that replaced a different stored row.
        unchanged: Rows equal to the stored row.
        duplicates: Rows left out because a later row has the same key.
    """

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    duplicates: int = 0

    def __add__(self, other: UpsertCounts) -> UpsertCounts:
        """Return the sum of both, count by count."""
        return UpsertCounts(*map(sum, zip(astuple(self), astuple(other), strict=True)))

    def __str__(self) -> str:
        """Return the counts for a log line."""
        return " ".join(f"{name}={rows}" for name, rows in asdict(self).items())


@dataclass(frozen=True)
class Refusal:
    """A group of rows that PostgreSQL could not compute or refused to store.

    Attributes:
        group: Value of the column that the rows were isolated by, as PostgreSQL prints it; None for null.
        rows: Number of its rows; None if the query could not compute them.
        error: The reason. Its texts may quote values of rows.
    """

    group: str | None
    rows: int | None
    error: psycopg.Error


@dataclass(frozen=True)
class UpsertResult:
    """The result of an upsert or of its dry run.

    Attributes:
        counts: Counts of the stored rows; in a dry run, of the rows that an upsert would store. Together with the rows
            of the refused groups they add up to the rows of the source.
        refused: With ``isolate_by``, the groups that could not be computed, then those that could not be stored.
        changes: In a dry run without refused groups, the first rows that an upsert would write, in the order of the
            key: ``action`` (``insert`` or ``update``) and ``row``, the source's columns with their values as
            PostgreSQL prints them, or None.
    """

    counts: UpsertCounts
    refused: list[Refusal] = field(default_factory=list)
    changes: list[dict[str, Any]] = field(default_factory=list)
