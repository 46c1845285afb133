"""PgBouncer in transaction mode for tests: the installed program, or else the program of Debian's package."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

from dev.postgres import owner_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dev.postgres import Postgres

CACHE = Path(__file__).parents[1] / ".cache" / "pgbouncer"
START_SECONDS = 30

_LIBRARIES = {
    "libevent-2.1.so.7": ("libevent-2.1-7t64", "libevent-2.1-7"),
    "libcares.so.2": ("libcares2", "libc-ares2"),
}
"""Library → its Debian and Ubuntu packages, whose names differ between releases."""


class UnavailableError(Exception):
    """PgBouncer is not installed and cannot be downloaded."""


def program() -> tuple[Path, dict[str, str]]:
    """Return the path of PgBouncer and its environment.

    Raises:
        UnavailableError: PgBouncer is not installed and cannot be downloaded; the text says why.
    """
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    if found:
        return Path(found), dict(os.environ)
    fetched = CACHE / "usr/sbin/pgbouncer"
    libraries = ":".join(str(path) for path in sorted(CACHE.glob("usr/lib/*-linux-gnu*")))
    if not fetched.exists():
        _fetch()
        return program()
    return fetched, {**os.environ, "LD_LIBRARY_PATH": libraries}


def _fetch() -> None:
    """Unpack the Debian package into the cache, without root and without an installation."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        msg = "PgBouncer is not installed, and only Debian and Ubuntu can download it"
        raise UnavailableError(msg)
    building = CACHE.with_name(f"pgbouncer-{os.getpid()}")
    for folder in ("lists/partial", "archives/partial", "root"):
        (building / folder).mkdir(parents=True)
    options = ["-q", "-o", f"Dir::State::Lists={building}/lists", "-o", f"Dir::Cache={building}"]
    options += ["-o", "Debug::NoLocking=true", "-o", "APT::Sandbox::User="]
    try:
        _run(["apt-get", *options, "update"], building)
        _run(["apt-get", *options, "download", "pgbouncer"], building)
        _unpack(building)
        missing = subprocess.run(
            ["ldd", building / "root/usr/sbin/pgbouncer"], capture_output=True, text=True, check=False
        )
        for library, names in _LIBRARIES.items():
            if f"{library} => not found" in missing.stdout:
                for name in names:
                    subprocess.run(
                        ["apt-get", *options, "download", name], cwd=building, capture_output=True, check=False
                    )
        _unpack(building)
        # If root runs the tests, another user runs PgBouncer.
        _run(["chmod", "-R", "a+rX", str(building / "root")], building)
        CACHE.parent.chmod(0o755)
        (building / "root").rename(CACHE)
    except OSError as error:
        if not CACHE.exists():  # otherwise, another process has unpacked it
            msg = f"PgBouncer is not installed and cannot be unpacked: {error}"
            raise UnavailableError(msg) from None
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _unpack(building: Path) -> None:
    for package in building.glob("*.deb"):
        _run(["dpkg-deb", "-x", str(package), str(building / "root")], building)


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        msg = f"PgBouncer is not installed and cannot be downloaded: {command[0]}: {reason}"
        raise UnavailableError(msg)


@contextmanager
def running(postgres: Postgres, folder: Path) -> Iterator[str]:
    """Run PgBouncer in transaction mode with few server connections, so that clients share them.

    Args:
        postgres: The server to connect to.
        folder: Folder of its configuration and log, accessible to its user.

    Yields:
        The URL of the server's maintenance database through PgBouncer.

    Raises:
        UnavailableError: See :func:`program`.
    """
    path, environment = program()
    server = conninfo_to_dict(postgres.url)
    target = " ".join(f"{name}={server[name]}" for name in ("host", "port", "user", "password") if server.get(name))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    configuration = folder / "pgbouncer.ini"
    configuration.write_text(
        f"[databases]\n* = {target}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        "auth_type = any\npool_mode = transaction\ndefault_pool_size = 4\nmax_client_conn = 500\n"
    )
    configuration.chmod(0o644)
    # PgBouncer refuses to run as root, and only its owner can use the socket of the embedded server.
    owner: dict[str, Any] = {}
    if os.geteuid() == 0:
        account = owner_of(postgres)
        owner = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    with (folder / "pgbouncer.log").open("w") as log:
        process = subprocess.Popen([path, configuration], env=environment, **owner, stdout=log, stderr=log)
    try:
        url = urlunsplit(("postgresql", f"{server['user']}@127.0.0.1:{port}", urlsplit(postgres.url).path, "", ""))
        _wait_until_ready(url, process, folder / "pgbouncer.log")
        yield url
    finally:
        process.terminate()
        process.wait()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                msg = f"PgBouncer did not start: {error} Log: {log.read_text()}"
                raise RuntimeError(msg) from error
            time.sleep(0.05)
        else:
            return
