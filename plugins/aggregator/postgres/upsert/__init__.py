"""Upserts of a query or of rows, in one transaction: equal rows are neither rewritten nor locked.

Every row of the source is counted as inserted, updated, unchanged or duplicate, or belongs to a refused group.

- :mod:`.spec`: what is upserted, and the result.
- :mod:`.target`: the table as PostgreSQL's catalog describes it.
- :mod:`.staging`: the staging table, the comparison and the write.
- :mod:`.isolation`: the upsert, and the bisection of groups that fail.

Statements of these modules are templates that psycopg completes with identifiers. Each is a constant of the module that
runs it. See ``docs/adr/0003-upsert.md`` for the reasons.
"""

from aggregator.postgres.upsert.isolation import blames_rows, compute, upsert
from aggregator.postgres.upsert.spec import Query, Refusal, Rows, Source, UpsertCounts, UpsertResult, UpsertSpec
from aggregator.postgres.upsert.staging import PREVIEW_ROWS

__all__ = [
    "PREVIEW_ROWS",
    "Query",
    "Refusal",
    "Rows",
    "Source",
    "UpsertCounts",
    "UpsertResult",
    "UpsertSpec",
    "blames_rows",
    "compute",
    "upsert",
]
