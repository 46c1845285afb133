"""Brings a product's database up to date: its migrations, then its functions (spec: databases).

``include/sql/migrations/<database>/NNNN_<what>.sql`` are applied once, in order, each in one transaction together with
the row that remembers it. ``include/sql/functions/<database>/**/*.sql`` are applied again whenever their text changes.
The connection of ``<database>`` is ``<database>_db``.

Alembic keeps the version and the transactions; its scripts are our SQL files, so that a migration is readable and
usable without Python. Everything it notes down stands in the schema ``migrations``, separately for each database name,
so that several of them may share one PostgreSQL database.

    python -m aggregator.migrations [database …]
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import re
import sys
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from alembic.runtime.migration import MigrationContext, MigrationInfo, RevisionStep
from alembic.script.revision import Revision, RevisionMap
from sqlalchemy import create_engine, pool, text

from aggregator.errors import AggregatorError, HardError
from aggregator.paths import SQL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import psycopg
    from sqlalchemy import Connection

# It tells every step; the report says the same in one line.
logging.getLogger("alembic").setLevel(logging.WARNING)

LOCK_TIMEOUT = "30s"
"""How long a migration waits for a table's lock before it gives up: an application behind it waits as long."""

_RAISED_NOTICE = "00000"

_NOTES = """
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
comment on schema migrations is 'What aggregator.migrations has applied to this database.';
"""


@dataclass(frozen=True)
class Report:
    """What one call changed.

    Attributes:
        database: Name of the database, as its folder is called.
        migrations: Names of the migrations it applied, in order.
        functions: Files of the functions it applied, relative to the folder of the database's functions.
        notices: What its files said by ``raise notice``.
    """

    database: str
    migrations: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """For a person: what was applied in one line, and one for each notice."""
        changes = [*self.migrations, *self.functions]
        applied = ", ".join(changes) if changes else "up to date"
        return "\n".join(f"{self.database}: {line}" for line in [applied, *self.notices])


class _SqlMigration(Revision):
    """One file, as Alembic sees it: its number is the version, the file before it the one it builds on."""

    def __init__(self, path: Path, before: Path | None) -> None:
        super().__init__(_number(path), _number(before) if before else None)
        self.path = path
        self.doc = path.stem
        self.log_entry = path.stem
        self.module = SimpleNamespace(upgrade=self._upgrade)

    def _upgrade(self, connection: Connection) -> None:
        _execute_file(connection, self.path)


def databases(root: Path = SQL) -> list[str]:
    """The names of the databases that have migrations."""
    return sorted(folder.name for folder in (root / "migrations").iterdir() if folder.is_dir())


def migrate(connect: Callable[[], psycopg.Connection[Any]], database: str, root: Path = SQL) -> Report:
    """Apply what is missing. Two calls at once wait for each other; a second call changes nothing.

    Args:
        connect: Opens a psycopg connection to the database.
        database: The folder below ``migrations`` and ``functions``, e.g. ``clicks``.
        root: Folder of the SQL files.

    Returns:
        What was applied.

    Raises:
        HardError: Numbers are missing or double, a file was changed after it was applied, or an applied file is gone.
        sqlalchemy.exc.SQLAlchemyError: The database refused a migration; it and all after it are not applied.
        psycopg.Error: The same, of the statements of a file.
    """
    revisions = _revisions(root / "migrations" / database)
    report = Report(database)
    engine = create_engine("postgresql+psycopg://", creator=connect, poolclass=pool.NullPool)
    with engine.connect() as guard, engine.connect() as connection:
        # Held by a session of its own, so that it spans all transactions and goes away with the process.
        guard.execute(text("select pg_advisory_lock(hashtext('aggregator.migrations'))"))
        connection.exec_driver_sql(f"set lock_timeout = '{LOCK_TIMEOUT}'")
        connection.exec_driver_sql(_NOTES)
        connection.commit()
        _refuse_changed_history(connection, database, revisions)
        _driver(connection).add_notice_handler(partial(_keep_notice, report))
        _apply_migrations(connection, revisions, report)
        _apply_functions(connection, root / "functions" / database, report)
    return report


def _revisions(folder: Path) -> list[_SqlMigration]:
    paths = sorted(folder.glob("*.sql"))
    for expected, path in enumerate(paths, start=1):
        if re.fullmatch(r"\d{4}_[a-z0-9_]+", path.stem) is None or int(_number(path)) != expected:
            msg = (
                f"{path} is not named {expected:04}_<what>.sql: migrations are numbered without gaps, each number once."
            )
            raise HardError(msg)
    return [_SqlMigration(path, before) for path, before in zip(paths, [None, *paths], strict=False)]


def _refuse_changed_history(connection: Connection, database: str, revisions: Sequence[_SqlMigration]) -> None:
    digests = {revision.doc: _digest(revision.path) for revision in revisions}
    known = text("select name, digest from migrations.history where database = :database order by name")
    for name, digest in connection.execute(known, {"database": database}):
        if name not in digests:
            msg = (
                f"Migration {name} was applied to {database} and its file is gone. Bring it back; undo it by a new one."
            )
            raise HardError(msg)
        if digests[name] != digest:
            msg = f"Migration {name} was changed after it was applied to {database}. Restore it; change by a new one."
            raise HardError(msg)
    connection.rollback()


def _apply_migrations(connection: Connection, revisions: Sequence[_SqlMigration], report: Report) -> None:
    order = RevisionMap(lambda: revisions)
    order.get_current_head()  # it links the revisions to each other when it is first asked something

    def missing(heads: tuple[str, ...], _: MigrationContext) -> Iterator[RevisionStep]:
        applied = int(heads[0]) if heads else 0
        for revision in revisions[applied:]:
            yield RevisionStep(order, revision, is_upgrade=True)  # type: ignore[arg-type]  # what it uses of a Script, ours has

    def remember(*, step: MigrationInfo, **_: object) -> None:
        revision = revisions[int(str(step.up_revision_id)) - 1]
        _remember(connection, "history", report.database, revision.doc, _digest(revision.path))
        report.migrations.append(revision.doc)

    context = MigrationContext.configure(
        connection,
        opts={
            "version_table": report.database,
            "version_table_schema": "migrations",
            "transaction_per_migration": True,
            "fn": missing,
            "on_version_apply": [remember],
        },
    )
    context.run_migrations(connection=connection)
    connection.commit()


def _apply_functions(connection: Connection, folder: Path, report: Report) -> None:
    known = text("select name, digest from migrations.functions where database = :database")
    applied = {name: digest for name, digest in connection.execute(known, {"database": report.database})}  # noqa: C416
    connection.rollback()
    # One transaction: functions may call each other, and a caller sees either the old ones or the new ones.
    with connection.begin():
        # Bodies may name functions that come later in the alphabet.
        connection.exec_driver_sql("set local check_function_bodies = off")
        for path in sorted(folder.rglob("*.sql")):
            name, digest = path.relative_to(folder).as_posix(), _digest(path)
            if applied.get(name) != digest:
                _execute_file(connection, path)
                _remember(connection, "functions", report.database, name, digest)
                report.functions.append(name)


def _execute_file(connection: Connection, path: Path) -> None:
    # Straight to the driver without parameters: several statements in one go, and a % is a %.
    _driver(connection).execute(path.read_bytes())


def _driver(connection: Connection) -> psycopg.Connection[Any]:
    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    return driver


def _keep_notice(report: Report, notice: psycopg.errors.Diagnostic) -> None:
    # PostgreSQL's own notices ("already exists, skipping") have codes of their own.
    if notice.sqlstate == _RAISED_NOTICE and notice.message_primary:
        report.notices.append(notice.message_primary)


def _remember(connection: Connection, table: str, database: str, name: str, digest: str) -> None:
    connection.execute(
        text(
            f"insert into migrations.{table} (database, name, digest) values (:database, :name, :digest) "  # noqa: S608
            "on conflict (database, name) do update set digest = excluded.digest, applied_at = now()"
        ),
        {"database": database, "name": name, "digest": digest},
    )


def _number(path: Path) -> str:
    return path.stem.split("_")[0]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Migrate the databases whose names are given, or all of them, through their Airflow connections.

    Returns:
        The exit code: 0, or 1 after an error, which is printed.
    """
    from aggregator.hooks.postgres import PostgresTransactionHook  # noqa: PLC0415  # seconds; migrate() has no use for it

    parser = argparse.ArgumentParser(prog="python -m aggregator.migrations", description="Apply missing migrations.")
    parser.add_argument("database", nargs="*", help=f"one of {', '.join(databases())}; all of them if none is given")
    for database in parser.parse_args(arguments).database or databases():
        hook = PostgresTransactionHook(f"{database}_db")
        try:
            print(migrate(hook.connect, database))
        except AggregatorError as error:
            print(f"{database}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
