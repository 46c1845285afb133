"""Paths of files in this repository that are not Python."""

from __future__ import annotations

from pathlib import Path

SQL = Path(__file__).parents[3] / "include" / "sql"
"""Root folder of the SQL files, and the ``template_searchpath`` of every DAG."""
