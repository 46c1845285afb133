"""The trace id, which identifies a run of ``kpi_dispatch`` in n8n, in the job record and in the logs."""

from __future__ import annotations

import hashlib
import string
from datetime import UTC
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

ALPHABET = string.digits + string.ascii_lowercase
SUFFIX_LENGTH = 8


def trace_id(dag_id: str, run_id: str, run_time: datetime) -> str:
    """Derive the trace id of a run, so that a cleared run keeps its id.

    Returns:
        ``trace_{YYYYMMDD}_{HHMMSS}_{8 of a-z0-9}`` in UTC. Runs with the same time differ in the suffix.
    """
    number = int.from_bytes(hashlib.sha256(f"{dag_id}/{run_id}".encode()).digest())
    suffix = ""
    for _ in range(SUFFIX_LENGTH):
        number, digit = divmod(number, len(ALPHABET))
        suffix += ALPHABET[digit]
    return f"trace_{run_time.astimezone(UTC):%Y%m%d_%H%M%S}_{suffix}"


def trace_id_of(run: Any) -> str:
    """Return the trace id of ``dag_run`` in Airflow's task context."""
    return trace_id(run.dag_id, run.run_id, run.logical_date or run.run_after)
