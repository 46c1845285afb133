"""Everything behind the DAGs: hooks, operators, timetable, rules."""

from __future__ import annotations

__version__ = "0.1.0"
"""Of the repository; ``/api/health`` tells it."""
