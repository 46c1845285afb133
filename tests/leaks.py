"""Whether a secret of a stack is where it must not be: each has a file of its own, and is a word like no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def leaked(home: Path, text: bytes) -> list[str]:
    """The names of the secrets of the stack at ``home`` that are in a text."""
    secrets = list((home / "secrets").iterdir())
    assert secrets
    return sorted(path.name for path in secrets if path.read_bytes() in text)
