"""The browser's files of the Operations page, which Airflow's UI loads as one ES module (``react_apps``)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

PREFIX: Final = "/api/operations"
"""Where Airflow mounts the app."""

FOLDER: Final = Path(__file__).parents[1] / "static"

FOREVER: Final = "private, max-age=31536000, immutable"
"""``Cache-Control`` of a file."""

MEDIA_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    "": "text/plain; charset=utf-8",
}
"""Suffix of a file → its media type. A file of another type is not served."""

FILES: Final = {
    path.relative_to(FOLDER).as_posix(): path
    for path in sorted(FOLDER.rglob("*"))
    if path.is_file() and path.suffix in MEDIA_TYPES
}
"""Path in a URL → file. A request can only name one of these, so it cannot leave the folder."""


def version() -> str:
    """Hash of all files. It is part of their URLs, so that a browser keeps each file until it changes."""
    digest = hashlib.sha256()
    for name, path in FILES.items():
        digest.update(f"{name}\n{path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


VERSION: Final = version()


def react_apps() -> list[dict[str, str]]:
    """The places in Airflow's UI that show the page."""
    bundle_url = f"{PREFIX[1:]}/static/{VERSION}/index.js"
    places = (
        ("Operations", "nav", "operations"),
        ("Operations", "dag", "dag-operations"),
        ("Operations", "dag_run", "run-operations"),
        ("Operations summary", "dashboard", "operations-summary"),
    )
    icons = {
        key: f"{PREFIX[1:]}/static/{VERSION}/{name}"
        for key, name in (("icon", "operations.svg"), ("icon_dark_mode", "operations-dark.svg"))
        if name in FILES
    }
    return [
        {"name": name, "bundle_url": bundle_url, "destination": destination, "url_route": route, **icons}
        for name, destination, route in places
    ]
