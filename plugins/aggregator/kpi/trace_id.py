"""The id under which n8n, the job record and the logs know a run of ``kpi_dispatch`` (spec: KPI dispatch)."""

from __future__ import annotations

import hashlib
import string
from datetime import UTC
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

ALPHABET = string.digits + string.ascii_lowercase
SUFFIX_LENGTH = 8


def trace_id(dag_id: str, run_id: str, moment: datetime) -> str:
    """The trace id of a run: derived from it, so that a cleared run keeps its id.

    Args:
        dag_id: Whose run.
        run_id: Its id in Airflow.
        moment: Its logical date; for a run that has none, when it was due.

    Returns:
        ``trace_{YYYYMMDD}_{HHMMSS}_{8 of a-z0-9}``, in UTC; two runs of one moment differ in the suffix.
    """
    number = int.from_bytes(hashlib.sha256(f"{dag_id}/{run_id}".encode()).digest())
    suffix = ""
    for _ in range(SUFFIX_LENGTH):
        number, digit = divmod(number, len(ALPHABET))
        suffix += ALPHABET[digit]
    return f"trace_{moment.astimezone(UTC):%Y%m%d_%H%M%S}_{suffix}"


def trace_id_of(run: Any) -> str:
    """The trace id of a run, as tasks know it.

    Args:
        run: ``dag_run`` of Airflow's task context.

    Returns:
        As :func:`trace_id` does.
    """
    return trace_id(run.dag_id, run.run_id, run.logical_date or run.run_after)
