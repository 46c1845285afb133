"""Search texts for the secrets of a stack, which are stored in one file each."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def leaked(home: Path, text: bytes) -> list[str]:
    """Names of the secrets of the stack at ``home`` that a text contains."""
    secrets = list((home / "secrets").iterdir())
    assert secrets
    return sorted(path.name for path in secrets if path.read_bytes() in text)
