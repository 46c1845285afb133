"""The table of an upsert as PostgreSQL's catalog describes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from psycopg import sql

from aggregator.core.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import psycopg
    from psycopg.rows import TupleRow

    from aggregator.postgres.upsert.spec import UpsertSpec

# A column of a domain has the type that the domain is based on.
_COLUMNS = """
with recursive base (attrelid, attnum, oid) as (
    select attrelid, attnum, atttypid
    from pg_attribute join pg_class on pg_class.oid = attrelid join pg_namespace on pg_namespace.oid = relnamespace
    where nspname = %s and relname = %s and relkind in ('r', 'p') and attnum > 0 and not attisdropped
    union all
    select base.attrelid, base.attnum, pg_type.typbasetype
    from base join pg_type using (oid) where pg_type.typtype = 'd'
)
select
    attribute.attrelid,
    attribute.attname,
    case when type.typnamespace = 'pg_catalog'::regnamespace then type.typname else '' end,
    format_type(attribute.atttypid, attribute.atttypmod),
    attribute.attnotnull,
    attribute.attgenerated = '' and attribute.attidentity <> 'a',
    coalesce(element.typname, type.typname) in ('json', 'xml') or coalesce(element.typcategory, type.typcategory) = 'G'
from base
join pg_type as type using (oid)
left join pg_type as element on element.oid = type.typelem and type.typcategory = 'A'
join pg_attribute as attribute using (attrelid, attnum)
where type.typtype <> 'd'
order by attribute.attnum
"""

# ON CONFLICT (columns) can only use an index that is immediate, not partial and without expressions.
_UNIQUE_INDEXES = """
select indnullsnotdistinct
from pg_index
where indrelid = %(table)s and indisunique and indisvalid and indimmediate and indpred is null and indexprs is null
    and %(key)s::text[] = array(
        select attribute.attname::text collate "C"
        from unnest(indkey) with ordinality as part (attnum, position)
        join pg_attribute as attribute on attribute.attrelid = indrelid and attribute.attnum = part.attnum
        where part.position <= indnkeyatts
        order by 1
    )
"""


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        name: Its name.
        base_type: ``pg_type.typname`` of a built-in type, empty for other types.
        type_name: Its type as PostgreSQL prints it.
        not_null: Whether it has a NOT NULL constraint.
        writable: Whether it accepts values: PostgreSQL does not generate it.
        compared_as_text: Whether its type has no usable equality: ``json`` and ``xml`` have none, and geometric types
            may compare areas.
    """

    name: str
    base_type: str
    type_name: str
    not_null: bool
    writable: bool
    compared_as_text: bool


@dataclass(frozen=True)
class Target:
    """The table of an upsert, with its columns by name, in the order of the table."""

    spec: UpsertSpec
    identifier: sql.Identifier
    columns: Mapping[str, Column]

    @classmethod
    def read(cls, cursor: psycopg.Cursor[TupleRow], spec: UpsertSpec) -> Target:
        """Read the table from the catalog, and refuse an upsert that its columns or indexes do not allow."""
        schema, _, name = spec.table.partition(".")
        found = cursor.execute(_COLUMNS, [schema, name]).fetchall()
        if not found:
            refuse(spec, "the table does not exist; name it as schema.table, exactly as in the catalog")
        target = cls(spec, sql.Identifier(schema, name), {column: Column(column, *row) for _, column, *row in found})
        target._check_spec()
        indexes = cursor.execute(_UNIQUE_INDEXES, {"table": found[0][0], "key": sorted(spec.key)}).fetchall()
        target._check_indexes([nulls_not_distinct for (nulls_not_distinct,) in indexes])
        return target

    def check_source(self, columns: Sequence[str]) -> None:
        """Refuse columns of a source that are unknown, generated, repeated, missing or set by the upsert."""
        self._check_writable(columns)
        if len(set(columns)) < len(columns):
            refuse(self.spec, f"the source has a column twice: {_names(columns)}")
        if missing := [column for column in self.spec.key if column not in columns]:
            refuse(self.spec, f"the source does not have key column {_names(missing)}")
        if touched := [column for column in self.spec.touch if column in columns]:
            refuse(self.spec, f"column {_names(touched)} is in both the source and `touch`")

    def _check_spec(self) -> None:
        columns = [*self.spec.key, *self.spec.touch]
        if not self.spec.key:
            refuse(self.spec, "the key has no columns")
        if len(set(columns)) < len(columns):
            refuse(self.spec, "key and touch name a column twice")
        self._check_writable(columns)

    def _check_indexes(self, nulls_not_distinct: Collection[bool]) -> None:
        if not nulls_not_distinct:
            key = _names(self.spec.key)
            refuse(self.spec, f"no unique index (immediate, not partial) has exactly the columns of the key {key}")
        nullable = [column for column in self.spec.key if not self.columns[column].not_null]
        if nullable and not any(nulls_not_distinct):
            refuse(
                self.spec,
                f"key column {_names(nullable)} can be null, so every run would insert such rows again; "
                "make it NOT NULL, or the unique index NULLS NOT DISTINCT",
            )

    def _check_writable(self, columns: Collection[str]) -> None:
        if unknown := [column for column in columns if column not in self.columns]:
            refuse(self.spec, f"the table has no column {_names(unknown)}; it has {_names(self.columns)}")
        if generated := [column for column in columns if not self.columns[column].writable]:
            refuse(self.spec, f"PostgreSQL generates column {_names(generated)}; leave it out")


def refuse(spec: UpsertSpec, reason: str) -> NoReturn:
    """Raise a permanent error about an upsert that cannot work."""
    raise PermanentError(f"Cannot upsert into {spec.table}: {reason}. Nothing was written.")


def _names(columns: Iterable[str]) -> str:
    return ", ".join(columns)
