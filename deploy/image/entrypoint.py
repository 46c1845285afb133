#!/usr/bin/env python3
"""Entry point of the containers: stores the secrets where Airflow and libpq read them, then starts the command.

A secret is the content of the file ``/run/secrets/NAME`` or, if that is empty, the value of the variable ``NAME``.
Passwords may have any characters: they are encoded here. The files are on the container's ``/tmp``, so that commands of
``docker compose exec`` read them, too.
"""

from __future__ import annotations

import io
import os
import sys
from configparser import RawConfigParser
from pathlib import Path
from urllib.parse import quote

SECRETS = Path("/run/secrets")

DATABASE_URL = "postgresql+psycopg2://airflow@postgres/airflow"
"""Without the password, which libpq and asyncpg take from ``PGPASSFILE``."""


def secret(name: str, folder: Path) -> str:
    """Return a secret.

    Args:
        name: Name of its file, and of its variable.
        folder: Folder of the files.

    Raises:
        SystemExit: It is missing, or has more than one line.
    """
    path = folder / name
    value = (path.read_text() if path.exists() else "").strip("\r\n") or os.environ.get(name, "")
    if not value or len(value.splitlines()) > 1:
        sys.exit(f"{name} is {'not one line' if value else 'missing'}. Nothing was started. See .env.example.")
    return value


def write(path: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)


def configure(folder: Path) -> None:
    """Write the files that ``AIRFLOW_CONFIG`` and ``PGPASSFILE`` name.

    Args:
        folder: Folder of the files with secrets.

    Raises:
        SystemExit: A secret is missing.
    """
    broker = f"redis://:{quote(secret('REDIS_PASSWORD', folder), safe='')}@redis:6379/0"
    options = {
        ("core", "fernet_key"): secret("AIRFLOW_FERNET_KEY", folder),
        ("api", "secret_key"): secret("AIRFLOW_SECRET_KEY", folder),
        ("api_auth", "jwt_secret"): secret("AIRFLOW_JWT_SECRET", folder),
        ("database", "sql_alchemy_conn"): DATABASE_URL,
        ("celery", "broker_url"): broker,
    }
    configuration = RawConfigParser()
    for (section, option), value in options.items():
        configuration[section] = {option: value.replace("%", "%%")}  # Airflow interpolates
    text = io.StringIO()
    configuration.write(text)
    write(Path(os.environ["AIRFLOW_CONFIG"]), text.getvalue())
    password = secret("POSTGRES_PASSWORD", folder).replace("\\", "\\\\").replace(":", "\\:")
    write(Path(os.environ["PGPASSFILE"]), f"postgres:*:*:airflow:{password}\n")


if __name__ == "__main__":
    configure(SECRETS)
    os.execvp(sys.argv[1], sys.argv[1:])
