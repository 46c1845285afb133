"""Job records: what became of each KPI of a run (spec: KPI dispatch; ``docs/adr/0007-kpi-states.md``).

Thin: the SQL of ``include/sql/kpi`` does the work, in the caller's transaction, and
a trigger refuses transitions that do not exist. One request per KPI: commit :func:`claim` before it, :func:`record`
after.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, LiteralString

from psycopg.types.json import Jsonb

from aggregator.core.errors import PermanentError
from aggregator.core.json_input import replace_surrogates
from aggregator.core.paths import SQL

if TYPE_CHECKING:
    from collections.abc import Iterable

    import psycopg
    from psycopg.rows import TupleRow

    from aggregator.kpi.registry import Kpi

    Connection = psycopg.Connection[TupleRow] | psycopg.Cursor[TupleRow]

CONNECTION = "kpi_db"

PROBLEMS_AT_MOST = 50
"""KPIs that a summary names; its counts have them all."""


class Status(StrEnum):
    """Where a KPI stands."""

    PENDING = "pending"
    SENDING = "sending"
    TRIGGERED = "triggered"
    FAILED = "failed"
    UNKNOWN = "unknown"
    COMPLETED = "completed"
    TIMEOUT = "timeout"


class Claim(StrEnum):
    """What a claim came to.

    Attributes:
        CLAIMED: The caller, and nobody else, sends the request now.
        ACCEPTED: n8n has accepted it earlier; nothing is to be sent.
        UNKNOWN: It may have been sent, or is being sent by another; nothing is to be sent.
        SENT_BY_ANOTHER_RUN: One of the same day has it; nothing is to be sent, and this job does not have it any more.
    """

    CLAIMED = "claimed"
    ACCEPTED = "accepted"
    UNKNOWN = "unknown"
    SENT_BY_ANOTHER_RUN = "sent by another run"


class Report(StrEnum):
    """What a report came to.

    Attributes:
        REPORTED: It is stored.
        REPEATED: It was stored before.
        REFUSED: It cannot follow the status that the KPI has.
        NO_SUCH_KPI: There is no such job, or no such KPI in it.
    """

    REPORTED = "reported"
    REPEATED = "repeated"
    REFUSED = "refused"
    NO_SUCH_KPI = "no such KPI"


@dataclass(frozen=True)
class Problem:
    """A KPI of which it is not known that it went well.

    Attributes:
        kpi_id: Which.
        status: Where it stands.
        error: What n8n or the connection to it said.
    """

    kpi_id: str
    status: str
    error: str | None


@dataclass(frozen=True)
class Summary:
    """What came of a job.

    Attributes:
        trace_id: Its id.
        status: Of the whole job.
        kpis: How many KPIs stand where, by status, without those at zero.
        problems: The first `PROBLEMS_AT_MOST` KPIs that were not sent, failed, timed out or are unknown.
    """

    trace_id: str
    status: str
    kpis: dict[str, int]
    problems: list[Problem]


def create(
    connection: Connection, trace_id: str, kpis: Iterable[Kpi], *, dag_id: str, run_id: str, environment: str
) -> None:
    """Write the job of a run, with every KPI pending; of a cleared run, add what is new in the registry.

    Args:
        connection: psycopg connection or cursor to the KPI database.
        trace_id: The run's.
        kpis: The registry's active ones.
        dag_id: Whose run.
        run_id: Its id in Airflow.
        environment: ``ENVIRONMENT``.

    Raises:
        psycopg.errors.UniqueViolation: The trace id is that of another run.
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
    connection.execute(
        "select kpi.create_job(%s, %s, %s, %s, %s)", [trace_id, dag_id, run_id, environment, Jsonb(rows)]
    )


def claim(
    connection: Connection, trace_id: str, kpi_id: str, owner: str, *, retry_group: str = "", resend: bool = False
) -> Claim:
    """Ask to send a KPI. Commit before the request: a process that is killed after that leaves a trace.

    Args:
        connection: psycopg connection or cursor to the KPI database.
        trace_id: The job.
        kpi_id: Which.
        owner: Names this attempt only: a worker or trigger that is started again is another owner.
        retry_group: The same for all tries that repeat one request. A KPI that failed and is claimed by another group
            is sent under a new idempotency key.
        resend: Whether the run asks to send also what this run or another one has sent. It is granted once for each
            KPI of a job.

    Returns:
        Whether to send.

    Raises:
        PermanentError: The job has no such KPI.
    """
    statement: LiteralString = "select kpi.claim_kpi(%s, %s, %s, %s, %s)"
    return Claim(_one(connection, statement, trace_id, kpi_id, owner, retry_group, resend))


def idempotency_key(connection: Connection, trace_id: str, kpi_id: str) -> str:
    """The ``Idempotency-Key`` of a KPI that was claimed.

    Args:
        connection: psycopg connection or cursor to the KPI database.
        trace_id: The job.
        kpi_id: Which.

    Returns:
        Trace id, number of the request if it is not the first one, and KPI id. Retries have the same.

    Raises:
        PermanentError: The job has no such KPI.
    """
    given = {"trace_id": trace_id, "kpi_id": kpi_id}
    (key,) = connection.execute(_statement("kpi/queries/idempotency_key.sql"), given).fetchone() or (None,)
    if key is None:
        raise _not_there(trace_id)
    return str(key)


def record(
    connection: Connection,
    trace_id: str,
    kpi_id: str,
    owner: str,
    outcome: Literal["triggered", "failed", "unknown"],
    *,
    retry_count: int = 0,
    error: str | None = None,
) -> Status:
    """Store what came of the request.

    Args:
        connection: psycopg connection or cursor to the KPI database.
        trace_id: The job.
        kpi_id: Which.
        owner: As claimed.
        outcome: What came of it.
        retry_count: Requests after the first one of this claim.
        error: What was said, without secrets; the first 2,000 characters are kept.

    Returns:
        The KPI's status now. It is not the outcome where n8n's report came first, or a later owner has claimed the KPI.

    Raises:
        PermanentError: The job has no such KPI.
    """
    text = _storable(error)
    statement: LiteralString = "select kpi.record_outcome(%s, %s, %s, %s, %s, %s)"
    return Status(_one(connection, statement, trace_id, kpi_id, owner, outcome, retry_count, text))


def report(
    connection: Connection,
    trace_id: str,
    kpi_id: str,
    status: Literal["completed", "failed"],
    error: str | None = None,
) -> tuple[Report, Status]:
    """Store what n8n reports about a workflow's end, also before the answer to its request is recorded.

    Args:
        connection: psycopg connection or cursor to the KPI database.
        trace_id: The job.
        kpi_id: Which.
        status: How it ended.
        error: What went wrong; the first 2,000 characters are kept.

    Returns:
        What it came to, and the KPI's status now.
    """
    text = _storable(error)
    statement: LiteralString = "select kpi.report_kpi(%s, %s, %s, %s)"
    (answer,) = connection.execute(statement, [trace_id, kpi_id, status, text]).fetchone() or (None,)
    if answer is None:
        return Report.NO_SUCH_KPI, Status.UNKNOWN
    if answer in {Report.REPORTED, Report.REPEATED}:
        return Report(answer), Status(status)
    return Report.REFUSED, Status(answer)


def settle(connection: Connection, trace_id: str) -> Summary:
    """End the sending of a job: KPIs that are still being sent have lost their owner, and are unknown.

    Args:
        connection: psycopg connection or cursor to the KPI database.
        trace_id: The job, none of whose tasks sends any more.

    Returns:
        What came of it so far.

    Raises:
        PermanentError: There is no such job.
    """
    if not _one(connection, "select kpi.settle_job(%s)", trace_id):
        msg = f"There is no job {trace_id}: the task that creates it has not succeeded. Clear the run."
        raise PermanentError(msg)
    return summary(connection, trace_id)


def summary(connection: Connection, trace_id: str) -> Summary:
    """What came of a job so far.

    Args:
        connection: psycopg connection or cursor to the KPI database.
        trace_id: The job.

    Raises:
        PermanentError: There is no such job.
    """
    given = {"trace_id": trace_id, "at_most": PROBLEMS_AT_MOST}
    counts = connection.execute(_statement("kpi/queries/summary.sql"), given).fetchall()
    if not counts:
        raise _not_there(trace_id)
    problems = connection.execute(_statement("kpi/queries/problems.sql"), given).fetchall()
    return Summary(
        trace_id,
        status=counts[0][0],
        kpis={kpi_status: kpis for _, kpi_status, kpis in counts if kpis},
        problems=[Problem(*row) for row in problems],
    )


def awaited(connection: Connection, trace_id: str, timeout_minutes: float) -> int:
    """How many KPIs of a job n8n has still to report, and has time to.

    Args:
        connection: psycopg connection or cursor to the KPI database.
        trace_id: The job.
        timeout_minutes: As for :func:`expire`.
    """
    given = {"trace_id": trace_id, "timeout": timedelta(minutes=timeout_minutes)}
    (kpis,) = connection.execute(_statement("kpi/queries/awaited.sql"), given).fetchone() or (0,)
    return int(kpis)


def expire(connection: Connection, timeout_minutes: float) -> int:
    """Give up on reports that are overdue (``timeout``), and on senders that are gone (``unknown``), in every job.

    Args:
        connection: psycopg connection or cursor to the KPI database.
        timeout_minutes: ``JOB_TIMEOUT_MINUTES``, from the request on.

    Returns:
        How many KPIs.
    """
    return int(_one(connection, "select kpi.expire_kpis(%s)", timedelta(minutes=timeout_minutes)))


def prune(connection: Connection, keep_days: int) -> int:
    """Delete old jobs.

    Args:
        connection: psycopg connection or cursor to the KPI database.
        keep_days: Days that a job is kept, from its creation on.

    Returns:
        How many jobs.
    """
    return int(_one(connection, "select kpi.prune_jobs(%s)", timedelta(days=keep_days)))


def _one(connection: Connection, statement: LiteralString, *parameters: Any) -> Any:
    (value,) = connection.execute(statement, parameters).fetchone() or (None,)
    if value is None:
        raise _not_there(parameters[0])
    return value


def _not_there(trace_id: str) -> PermanentError:
    return PermanentError(
        f"There is no job {trace_id}, or this KPI is not in it. Clear the run: it creates its job again."
    )


def _storable(text: str | None) -> str | None:
    """A text that PostgreSQL can store."""
    return None if text is None else replace_surrogates(text.replace("\0", ""))


def _statement(file: str) -> str:
    return (SQL / file).read_text()
