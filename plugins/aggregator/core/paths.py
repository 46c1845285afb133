"""Where the repository keeps what is not Python."""

from __future__ import annotations

from pathlib import Path

SQL = Path(__file__).parents[3] / "include" / "sql"
"""Root of the SQL files; every DAG's ``template_searchpath``."""
