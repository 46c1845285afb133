"""Brings the database of a product up to date: its migrations, then its functions (spec: databases).

``include/sql/<product>/migrations/NNNN_<what>.sql`` are applied once, in order. Each is one transaction together with
the row that records it. ``include/sql/<product>/functions/*.sql`` are applied again whenever their text changes. Every
function gets a fixed ``search_path``, ``datestyle`` and ``timezone``, and its owner decides who executes it.
The connection of a database is ``<database>_db``. `FOLDERS` lists databases whose name is not that of the product.

Applied files are recorded in the schema ``migrations``, separately for each database name, so that several products may
share one PostgreSQL database. Nothing outlives a transaction, so this works behind a transaction pooler.

    python -m aggregator.postgres.migrations [database …]
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import re
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from aggregator.core.errors import AggregatorError, PermanentError, TransientError, is_transient
from aggregator.core.paths import SQL
from aggregator.postgres import session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from psycopg.rows import TupleRow

    Connection = psycopg.Connection[Any]
    Cursor = psycopg.Cursor[TupleRow]

FOLDERS = {"market": "ohlcv", "ops": "alerts"}
"""Database → the folder of its files below ``include/sql``, where the two names differ."""

LOCK_TIMEOUT = "30s"
"""How long a migration waits for the lock of a table. Applications that need the table wait as long."""

_log = logging.getLogger(__name__)

_UNLIMITED = dict.fromkeys(
    ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "transaction_timeout"), "0"
)
"""Limits that managed servers set for every session (Supabase: two minutes a statement). A migration takes longer."""

_LOCK = ["aggregator.migrations"]

# At transaction level: a pooled session would keep its lock, and the next call would wait for it indefinitely.
_TRY_LOCK = "select pg_try_advisory_xact_lock(hashtext(%s))"
_WAIT_FOR_LOCK = "select pg_advisory_xact_lock(hashtext(%s))"
_HOLDERS = """
select string_agg(pid::text, ', ') from pg_locks join pg_database on pg_database.oid = pg_locks.database
where locktype = 'advisory' and granted and datname = current_database()
    and objsubid = 1 and (classid::bigint << 32) | objid::bigint = hashtext(%s)::bigint
"""

_FORGET_FUNCTIONS = "delete from migrations.functions where database = %s and not name = any(%s)"

_PROTECT_FUNCTIONS = """
do $$
declare
    created record;
begin
    for created in
        select oid::regprocedure as name, prosqlbody is not null as is_parsed
        from pg_proc where xmin = pg_current_xact_id()::xid
    loop
        execute format('revoke all on function %s from public', created.name);
        -- A body that was parsed does not use the settings of its caller, and settings would prevent its inlining.
        continue when created.is_parsed;
        execute format(
            $alter$ alter function %s set search_path = '' set datestyle = 'ISO, MDY' set timezone = 'UTC' $alter$,
            created.name
        );
    end loop;
end $$
"""
"""Makes the functions that this transaction created or replaced independent of the settings of their callers."""

_RECORDS = """
create schema if not exists migrations;
create table if not exists migrations.history (
    database text not null,
    name text not null,
    digest text not null,
    applied_at timestamptz not null default now(),
    primary key (database, name)
);
create table if not exists migrations.functions (
    database text not null,
    name text not null,
    digest text not null,
    applied_at timestamptz not null default now(),
    primary key (database, name)
);
comment on schema migrations is 'What aggregator.postgres.migrations has applied to this database.';
"""

_HAS_RECORDS = """
select from pg_class join pg_namespace on pg_namespace.oid = relnamespace
where nspname = 'migrations' and relname = 'functions'
"""

# Another role may own the table; then it stays.
_ALEMBIC_TABLE = """
select from pg_class join pg_attribute on attrelid = pg_class.oid
where relnamespace = 'migrations'::regnamespace and relname = %s and attname = 'version_num'
    and pg_has_role(relowner, 'usage')
"""


@dataclass(frozen=True)
class Report:
    """The changes of one call.

    Attributes:
        database: Name of the database.
        migrations: Names of the applied migrations, in order.
        functions: Names of the applied functions.
        notices: Messages that the files raised as notices.
    """

    database: str
    migrations: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Return what was applied in one line, and a line for each notice."""
        applied = ", ".join([*self.migrations, *self.functions]) or "up to date"
        return "\n".join(f"{self.database}: {line}" for line in [applied, *self.notices])


def databases(root: Path = SQL) -> list[str]:
    """Return the names of the databases that have migrations."""
    names = {folder: database for database, folder in FOLDERS.items()}
    return sorted(names.get(path.parent.name, path.parent.name) for path in root.glob("*/migrations"))


def folder_of(database: str, root: Path = SQL) -> Path:
    """Return the folder of the migrations and functions of a database."""
    return root / FOLDERS.get(database, database)


def migrate(connect: Callable[[], Connection], database: str, root: Path = SQL) -> Report:
    """Apply what is missing. Two concurrent calls wait for each other; a second call changes nothing.

    Args:
        connect: Opens a psycopg connection to the database.
        database: Name of the database, e.g. ``clicks``.
        root: Folder of the SQL files.

    Returns:
        What was applied.

    Raises:
        PermanentError: Numbers of migrations are missing or repeated, a file was changed or removed after it was
            applied, or the database refused a statement. In the last case the text names the file, which was rolled
            back, and the files that were applied before it.
        TransientError: Likewise, and another attempt may succeed.
    """
    folder = folder_of(database, root)
    paths = _numbered(folder / "migrations")
    report = Report(database)
    try:
        with connect() as connection:
            connection.add_notice_handler(partial(_keep_notice, report))
            while _apply_next_migration(connection, paths, report):
                pass
            _apply_functions(connection, folder / "functions", report)
    except psycopg.Error as error:
        raise _failure(error, report) from None
    return report


def pending(cursor: Cursor, database: str, root: Path = SQL) -> list[str]:
    """What :func:`migrate` would apply. Nothing is changed.

    Args:
        cursor: A transaction in the database.
        database: Name of the database, e.g. ``clicks``.
        root: Folder of the SQL files.

    Returns:
        Names of the missing migrations, in order, and of the functions that are missing or differ.

    Raises:
        PermanentError: A file was changed or removed after it was applied.
    """
    folder = folder_of(database, root)
    paths, functions = _numbered(folder / "migrations"), sorted(folder.glob("functions/*.sql"))
    if cursor.execute(_HAS_RECORDS).fetchone() is None:
        return [path.stem for path in (*paths, *functions)]
    history, applied = (_applied(cursor, table, database) for table in ("history", "functions"))
    _refuse_changed_history(history, paths, database)
    changed = [path.stem for path in functions if applied.get(path.stem) != _digest(path)]
    return [*(path.stem for path in paths if path.stem not in history), *changed]


def _failure(error: psycopg.Error, report: Report) -> AggregatorError:
    from aggregator.postgres.hook import describe  # noqa: PLC0415 - takes seconds, and only a failure needs it

    file = next(iter(getattr(error, "__notes__", ())), None)
    what = f"{file} failed and was rolled back" if file else f"Database {report.database} was not brought up to date"
    reason = describe(error) if error.sqlstate else " ".join(str(error).split())
    applied = ", ".join(report.migrations) or "nothing"
    msg = f"{what}: {reason}. Applied before it: {applied}. Fix the cause and run this again."
    return (TransientError if is_transient(error) else PermanentError)(msg)


@contextmanager
def _locked(connection: Connection, database: str) -> Iterator[Cursor]:
    """Begin a transaction during which no other call of this module changes the same PostgreSQL database."""
    with session.begin(connection, _UNLIMITED) as cursor:
        if cursor.execute(_TRY_LOCK, _LOCK).fetchone() == (False,):
            ((holders,),) = cursor.execute(_HOLDERS, _LOCK).fetchall()
            _log.warning("%s: waiting for another migration (server process %s)", database, holders)
            cursor.execute(_WAIT_FOR_LOCK, _LOCK)
        cursor.execute("select set_config('lock_timeout', %s, true)", [LOCK_TIMEOUT])
        yield cursor
    connection.commit()


def _numbered(folder: Path) -> list[Path]:
    paths = sorted(folder.glob("*.sql"))
    for expected, path in enumerate(paths, start=1):
        if re.fullmatch(r"\d{4}_[a-z0-9_]+", path.stem) is None or int(path.stem.split("_")[0]) != expected:
            raise PermanentError(
                f"{path} is not named {expected:04}_<what>.sql. Migrations are numbered without gaps, each number "
                "once. Nothing was applied. Rename the file."
            )
    return paths


def _apply_next_migration(connection: Connection, paths: Sequence[Path], report: Report) -> bool:
    """Apply the first missing file. Return whether there was one."""
    with _locked(connection, report.database) as cursor:
        cursor.execute(_RECORDS)
        applied = _applied(cursor, "history", report.database)
        _refuse_changed_history(applied, paths, report.database)
        _drop_alembic_table(cursor, report.database, applied)
        missing = next((path for path in paths if path.stem not in applied), None)
        if missing is not None:
            _execute_file(cursor, missing)
            _record(cursor, "history", report.database, missing.stem, _digest(missing))
    if missing is not None:
        report.migrations.append(missing.stem)
    return missing is not None


def _refuse_changed_history(applied: Mapping[str, str], paths: Sequence[Path], database: str) -> None:
    digests = {path.stem: _digest(path) for path in paths}
    for name, digest in applied.items():
        if digests.get(name) != digest:
            what = "was changed" if name in digests else "was removed"
            raise PermanentError(
                f"Migration {name} was applied to {database}, and its file {what} later. Nothing was applied. Restore "
                "the file, and make the change in a new migration."
            )


def _drop_alembic_table(cursor: Cursor, database: str, applied: Mapping[str, str]) -> None:
    """Drop the version table of an earlier release, which used Alembic, once `history` has its version."""
    if cursor.execute(_ALEMBIC_TABLE, [database]).fetchone() is None:
        return
    table = sql.Identifier("migrations", database)
    versions = cursor.execute(sql.SQL("select version_num from {}").format(table)).fetchall()
    if all(any(name.startswith(f"{version}_") for name in applied) for (version,) in versions):
        cursor.execute(sql.SQL("drop table {}").format(table))


def _apply_functions(connection: Connection, folder: Path, report: Report) -> None:
    changed: list[str] = []
    # In one transaction: functions call each other, and callers must not see old and new ones together.
    with _locked(connection, report.database) as cursor:
        applied = _applied(cursor, "functions", report.database)
        # A body may call a function that comes later in the alphabet.
        cursor.execute("set local check_function_bodies = off")
        paths = sorted(folder.glob("*.sql"))
        for path in paths:
            name, digest = path.stem, _digest(path)
            if applied.get(name) != digest:
                _execute_file(cursor, path)
                _record(cursor, "functions", report.database, name, digest)
                changed.append(name)
        cursor.execute(_PROTECT_FUNCTIONS)
        cursor.execute(_FORGET_FUNCTIONS, [report.database, [path.stem for path in paths]])
    report.functions.extend(changed)


def _execute_file(cursor: Cursor, path: Path) -> None:
    try:
        # Without parameters, so that a file may have several statements, and % is literal.
        cursor.execute(path.read_bytes())
        # A deferred constraint would fail at the commit, without the name of the file.
        cursor.execute("set constraints all immediate")
    except psycopg.Error as error:
        error.add_note(path.relative_to(path.parents[2]).as_posix())
        raise


def _keep_notice(report: Report, notice: psycopg.errors.Diagnostic) -> None:
    # Only those of RAISE: PostgreSQL's own say "does not exist, skipping".
    if notice.source_function == "exec_stmt_raise" and notice.message_primary:
        report.notices.append(notice.message_primary)


def _applied(cursor: Cursor, table: str, database: str) -> dict[str, str]:
    rows = cursor.execute(
        f"select name, digest from migrations.{table} where database = %s order by name",  # noqa: S608
        [database],
    )
    return dict(rows.fetchall())


def _record(cursor: Cursor, table: str, database: str, name: str, digest: str) -> None:
    cursor.execute(
        f"insert into migrations.{table} (database, name, digest) values (%s, %s, %s) "  # noqa: S608
        "on conflict (database, name) do update set digest = excluded.digest, applied_at = now()",
        [database, name, digest],
    )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Migrate databases through their Airflow connections."""
    from aggregator.postgres.hook import PostgresTransactionHook  # noqa: PLC0415 - takes seconds

    parser = argparse.ArgumentParser(
        prog="python -m aggregator.postgres.migrations",
        description="Apply missing migrations and changed functions.",
    )
    parser.add_argument("database", nargs="*", help=f"one of {', '.join(databases())}; default: all of them")
    for database in parser.parse_args(arguments).database or databases():
        try:
            print(migrate(PostgresTransactionHook(f"{database}_db").connect, database))
        except AggregatorError as error:
            print(f"{database}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
