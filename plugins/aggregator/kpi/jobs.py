"""Job records: the state of each KPI of a run (spec: KPI dispatch; ``docs/adr/0007-kpi-states.md``).

The functions in ``include/sql/kpi/functions`` do the work, in the caller's transaction on the KPI database. A trigger
rejects invalid transitions. For each request, commit :func:`claim` before it and :func:`record` after it.

========== ====================================================== ==================================================
State      Meaning                                                Next states
========== ====================================================== ==================================================
pending    The job record exists, and the KPI was not sent.       sending
sending    A task claimed the KPI and writes the request.         triggered, failed, unknown, completed (early report)
triggered  n8n accepted the request.                              completed, failed, timeout
failed     n8n refused it, was unreachable or reported a failure. sending (retry or clear)
unknown    The request may have arrived, its response was lost.   triggered (late owner), completed, failed, timeout
completed  n8n reported success.                                  none
timeout    n8n did not report within ``JOB_TIMEOUT_MINUTES``.     none
========== ====================================================== ==================================================

The first claim of a run with the param ``resend`` may send a KPI again from any state but ``sending``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from psycopg.types.json import Jsonb

from aggregator.core.errors import PermanentError
from aggregator.core.json_input import replace_surrogates
from aggregator.core.paths import SQL
from aggregator.postgres.functions import call

if TYPE_CHECKING:
    from collections.abc import Iterable

    import psycopg
    from psycopg.rows import TupleRow

    from aggregator.kpi.registry import Kpi

    Connection = psycopg.Connection[TupleRow] | psycopg.Cursor[TupleRow]

CONNECTION = "kpi_db"

MAX_PROBLEMS = 50
"""Maximum number of KPIs that a summary lists. Its counts include all of them."""


class Status(StrEnum):
    """State of a KPI."""

    PENDING = "pending"
    SENDING = "sending"
    TRIGGERED = "triggered"
    FAILED = "failed"
    UNKNOWN = "unknown"
    COMPLETED = "completed"
    TIMEOUT = "timeout"


class Claim(StrEnum):
    """Result of a claim. The caller sends the request only for `CLAIMED`.

    Attributes:
        CLAIMED: The caller, and nobody else, sends the request now.
        ACCEPTED: n8n accepted an earlier request.
        UNKNOWN: An earlier request may have been sent, or another owner sends it now.
        FAILED: The pass failed to send it, and this is the first claim of the KPI's own instance after that.
        SENT_BY_ANOTHER_RUN: Another run of the same UTC day sent the KPI. It was removed from this job.
    """

    CLAIMED = "claimed"
    ACCEPTED = "accepted"
    UNKNOWN = "unknown"
    FAILED = "failed"
    SENT_BY_ANOTHER_RUN = "sent by another run"


class Report(StrEnum):
    """Result of a report.

    Attributes:
        REPORTED: It was stored.
        REPEATED: It was stored before.
        REFUSED: It contradicts the KPI's state. Nothing was stored.
        NO_SUCH_KPI: There is no such job, or no such KPI in it.
    """

    REPORTED = "reported"
    REPEATED = "repeated"
    REFUSED = "refused"
    NO_SUCH_KPI = "no such KPI"


@dataclass(frozen=True)
class Sent:
    """What a job knows about a KPI.

    Attributes:
        status: Its state.
        requests: Number of requests, connections that failed included.
        retry_count: Number of requests after the first one.
        idempotency_key: ``Idempotency-Key`` of its last claim: trace id, number of the request unless it is the first
            one, and KPI id. Retries share the key.
        error: Why it failed or is unknown.
        retry_after: Time until the next request after a transient failure; None after others.
    """

    status: Status
    requests: int
    retry_count: int
    idempotency_key: str
    error: str | None
    retry_after: timedelta | None


@dataclass(frozen=True)
class Problem:
    """A KPI that did not succeed, or whose outcome is unknown.

    Attributes:
        kpi_id: The KPI.
        status: Its state.
        error: Message of n8n, or of the connection to it.
    """

    kpi_id: str
    status: str
    error: str | None


@dataclass(frozen=True)
class Summary:
    """Outcome of a job.

    Attributes:
        trace_id: The job.
        status: Status of the job.
        kpis: Number of KPIs by state, without zeros.
        problems: The first `MAX_PROBLEMS` KPIs that were not sent, failed, timed out or are unknown.
    """

    trace_id: str
    status: str
    kpis: dict[str, int]
    problems: list[Problem]


def create(
    connection: Connection, trace_id: str, kpis: Iterable[Kpi], *, dag_id: str, run_id: str, environment: str
) -> None:
    """Create the job record of a run with all KPIs ``pending``. For a cleared run, update the existing record.

    Raises:
        psycopg.errors.UniqueViolation: The trace id belongs to another run.
    """
    rows = [
        {
            "kpi_id": kpi.id,
            "name": kpi.name,
            "type": kpi.type,
            "report_back": kpi.report_back,
            "metadata": kpi.metadata or {},
        }
        for kpi in kpis
    ]
    call(
        connection,
        "kpi.create_job",
        _trace_id=trace_id,
        _dag_id=dag_id,
        _run_id=run_id,
        _environment=environment,
        _kpis=Jsonb(rows),
    )


def sent_by_other_runs(connection: Connection, trace_id: str) -> tuple[bool, dict[str, str]]:
    """Find the KPIs that other runs of the same UTC day sent, and this run did not.

    Returns:
        Whether the run has a job, and the trace id of the other job by KPI id.
    """
    ((has_job, others),) = _query(connection, "kpi/queries/kpis_sent_by_others.sql", trace_id=trace_id)
    return has_job, others


def unsent(connection: Connection, trace_id: str, *, retry_group: str, resend: bool) -> set[str]:
    """Find the KPIs of a job that the pass sends. Without claims, so that it connects only for these.

    KPIs that failed permanently in this retry group are left out. The arguments are those of :func:`claim`.
    """
    rows = _query(connection, "kpi/queries/unsent.sql", trace_id=trace_id, retry_group=retry_group, resend=resend)
    return {kpi_id for (kpi_id,) in rows}


def claim(
    connection: Connection,
    trace_id: str,
    kpi_id: str,
    owner: str,
    *,
    retry_group: str = "",
    resend: bool = False,
    by_pass: bool = False,
) -> Claim:
    """Claim the right to send a KPI. Commit before the request, so that a killed process leaves its claim.

    Args:
        connection: psycopg connection or cursor of the KPI database.
        trace_id: The job.
        kpi_id: The KPI.
        owner: Unique id of this attempt. A restarted task is another owner.
        retry_group: Same value for all tries that repeat one request. A failed KPI that another group claims gets a new
            idempotency key.
        resend: Whether the run repeats KPIs that were sent already. Granted once for each KPI of a job.
        by_pass: Whether the caller sends all KPIs of the run. The KPI's own instance then gets `Claim.FAILED` once if
            the KPI failed, and continues its retry group.

    Returns:
        Whether to send the request.

    Raises:
        PermanentError: The job has no such KPI.
    """
    return Claim(
        _value(
            connection,
            "kpi.claim_kpi",
            _trace_id=trace_id,
            _kpi_id=kpi_id,
            _owner=owner,
            _retry_group=retry_group,
            _resend=resend,
            _pass=by_pass,
        )
    )


def read(connection: Connection, trace_id: str, kpi_id: str) -> Sent:
    """Return what a job knows about a KPI.

    Raises:
        PermanentError: The job has no such KPI.
    """
    rows = _query(connection, "kpi/queries/sent_kpi.sql", trace_id=trace_id, kpi_id=kpi_id)
    if not rows:
        raise _missing(trace_id)
    status, *more = rows[0]
    return Sent(Status(status), *more)


def record(
    connection: Connection,
    trace_id: str,
    kpi_id: str,
    owner: str,
    outcome: Literal["triggered", "failed", "unknown"],
    *,
    requests: int = 1,
    retry_after: timedelta | None = None,
    error: str | None = None,
) -> Status:
    """Store the outcome of a request.

    Args:
        connection: psycopg connection or cursor of the KPI database.
        trace_id: The job.
        kpi_id: The KPI.
        owner: The owner that claimed it.
        outcome: Outcome of the request.
        requests: Number of requests since the last record of this KPI.
        retry_after: Delay of the next request after a transient failure, zero or more; None after others.
        error: Message without secrets. The first 2,000 characters are stored.

    Returns:
        The current state. It differs from the outcome if n8n reported first, or if a later owner claimed the KPI.

    Raises:
        PermanentError: The job has no such KPI.
    """
    return Status(
        _value(
            connection,
            "kpi.record_outcome",
            _trace_id=trace_id,
            _kpi_id=kpi_id,
            _owner=owner,
            _outcome=outcome,
            _requests=requests,
            _retry_after=retry_after,
            _error=_storable(error),
        )
    )


def report(
    connection: Connection,
    trace_id: str,
    kpi_id: str,
    status: Literal["completed", "failed"],
    error: str | None = None,
) -> tuple[Report, Status]:
    """Store n8n's report about the end of a workflow. It may arrive before the response is recorded.

    The first 2,000 characters of ``error`` are stored. Returns the result, and the KPI's current state.
    """
    rows = call(
        connection,
        "kpi.report_kpi",
        _trace_id=trace_id,
        _kpi_id=kpi_id,
        _status=status,
        _error=_storable(error),
    )
    result = rows[0][0]
    if result is None:
        return Report.NO_SUCH_KPI, Status.UNKNOWN
    if result in {Report.REPORTED, Report.REPEATED}:
        return Report(result), Status(status)
    return Report.REFUSED, Status(result)


def finalize(connection: Connection, trace_id: str) -> Summary:
    """End the sending of a job, none of whose tasks may be sending, and return its outcome so far.

    KPIs that are still ``sending`` lost their owner and become ``unknown``.

    Raises:
        PermanentError: There is no such job.
    """
    if not _value(connection, "kpi.settle_job", _trace_id=trace_id):
        msg = (
            f"Job {trace_id} has no record, because task send_kpis did not write it. Nothing was sent. Fix the cause, "
            "then clear the run."
        )
        raise PermanentError(msg)
    return summary(connection, trace_id)


def summary(connection: Connection, trace_id: str) -> Summary:
    """Return the outcome of a job so far.

    Raises:
        PermanentError: There is no such job.
    """
    counts = _query(connection, "kpi/queries/summary.sql", trace_id=trace_id)
    if not counts:
        raise _missing(trace_id)
    problems = _query(connection, "kpi/queries/problems.sql", trace_id=trace_id, at_most=MAX_PROBLEMS)
    return Summary(
        trace_id,
        status=counts[0][0],
        kpis={kpi_status: kpis for _, kpi_status, kpis in counts if kpis},
        problems=[Problem(*row) for row in problems],
    )


def awaited(connection: Connection, trace_id: str, timeout_minutes: float) -> int:
    """Return the number of KPIs of a job whose report is missing, at most ``JOB_TIMEOUT_MINUTES`` after the request."""
    timeout = timedelta(minutes=timeout_minutes)
    ((kpis,),) = _query(connection, "kpi/queries/awaited.sql", trace_id=trace_id, timeout=timeout)
    return int(kpis)


def expire(connection: Connection, timeout_minutes: float) -> int:
    """In every job, mark overdue reports as ``timeout``, and KPIs whose sender is gone as ``unknown``.

    Returns the number of KPIs. ``timeout_minutes`` is ``JOB_TIMEOUT_MINUTES``, from the request.
    """
    return int(_value(connection, "kpi.expire_kpis", _timeout=timedelta(minutes=timeout_minutes)))


def prune(connection: Connection, keep_days: int) -> int:
    """Delete the jobs that are older than ``keep_days``, and return their number."""
    return int(_value(connection, "kpi.prune_jobs", _keep=timedelta(days=keep_days)))


def _value(connection: Connection, function: str, /, **arguments: Any) -> Any:
    """The result of a function, which returns null for a KPI that the job does not have."""
    ((value,),) = call(connection, function, **arguments)
    if value is None:
        raise _missing(arguments["_trace_id"])
    return value


def _query(connection: Connection, file: str, /, **parameters: Any) -> list[TupleRow]:
    return connection.execute((SQL / file).read_text(), parameters).fetchall()


def _missing(trace_id: str) -> PermanentError:
    return PermanentError(
        f"Job {trace_id} has no record, or no record of this KPI. Nothing was stored. Clear the run, which creates the "
        "record again."
    )


def _storable(text: str | None) -> str | None:
    """A text that PostgreSQL can store."""
    return None if text is None else replace_surrogates(text.replace("\0", ""))
