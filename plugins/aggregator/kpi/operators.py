"""The tasks of ``kpi_dispatch``: read the registry, create the job, send one KPI, settle the job (spec: KPI dispatch).

A KPI is sent once: its claim is committed before the request, the outcome after it. XCom carries ids only; each task
reads the registry, so that a KPI is sent as the registry has it now, also when its task is cleared.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, timedelta
from math import ceil
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow.sdk import BaseOperator, Variable
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowSkipException

from aggregator.core.errors import AggregatorError, PermanentError, WrongParamsError
from aggregator.core.operators import ClosingOperator
from aggregator.core.paths import SQL
from aggregator.core.settings import KpiSettings
from aggregator.kpi import WORKER
from aggregator.kpi.trace_id import trace_id_of

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from datetime import datetime

    import psycopg
    from airflow.sdk import Context
    from psycopg.rows import TupleRow

    from aggregator.kpi.jobs import Summary
    from aggregator.kpi.registry import Kpi, Registry

REGISTRY_TASK = "read_registry"
"""Id of the task whose XCom says what is sent."""

NOTHING_TO_SEND = "nothing_to_send"
"""XCom key under which the reading task says why the run is skipped."""

NAMED_AT_MOST = 10
"""KPIs that an error names; the job's record has them all."""

ON_TIME = timedelta(hours=1)
"""How long after its moment a run may begin and send, even if midnight was in between."""

PATIENCE = timedelta(minutes=5)
"""How much longer than the reports' own time the wait for them may take, before it is begun anew."""


class _KpiOperator(BaseOperator):
    ui_color = "#ead7e8"

    def _transaction(
        self, context: Context, *, read_only: bool = False
    ) -> AbstractContextManager[psycopg.Cursor[TupleRow]]:
        from aggregator.kpi import jobs
        from aggregator.postgres.hook import PostgresTransactionHook

        return PostgresTransactionHook(jobs.CONNECTION).task_transaction(context, read_only=read_only)


class ReadKpiRegistryOperator(_KpiOperator):
    """Decide which KPIs the run sends.

    A run whose day is over when it begins, more than an hour late, and which has no job yet, sends nothing: neither
    after downtime nor in a backfill. A KPI that another run of the same day has sent is left out. The param ``resend``
    lifts both, the param ``kpis`` chooses.
    """

    def execute(self, context: Context) -> list[list[str]]:
        """Read and check the registry.

        Returns:
            The ids, in pages of no more than Airflow maps over (``max_map_length``).

        Raises:
            RegistryError: It is missing, not JSON, or too large; there is no job record.
            WrongParamsError: The param ``kpis`` names ids that are not active; there is no job record.
            AirflowSkipException: The run's day is over.
            AggregatorError: The KPI database cannot be used.
        """
        registry = _registry()
        for dropped in registry.dropped:
            self.log.warning("DROPPED from the registry, and not sent: %s: %s", dropped.name, dropped.reason)
        trace_id = trace_id_of(context["dag_run"])
        params = context["params"]
        wanted = _wanted(params["kpis"], registry)
        with self._transaction(context, read_only=True) as cursor:
            statement = (SQL / "kpi/queries/kpis_sent_by_others.sql").read_text()
            known, others = cursor.execute(statement, {"trace_id": trace_id}).fetchone() or (False, {})
        if params["resend"]:
            others = {}
        elif not known and (reason := _day_is_over(context)):
            context["ti"].xcom_push(NOTHING_TO_SEND, reason)
            raise AirflowSkipException(reason)
        chosen = [kpi.id for kpi in registry.kpis if not wanted or kpi.id in wanted]
        if left_out := [id_ for id_ in chosen if id_ in others]:
            self.log.warning(
                "%d KPIs were sent by another run of this day, and are left out; to send them again, start a run with "
                "resend. The first: %s by %s",
                len(left_out),
                left_out[0],
                others[left_out[0]],
            )
        ids = [id_ for id_ in chosen if id_ not in others]
        if not ids:
            self.log.warning("NO KPI is to be sent: the registry has %d active ones.", len(registry.kpis))
        self.log.info("job=%s kpis=%d dropped=%d", trace_id, len(ids), len(registry.dropped))
        return pages(ids, conf.getint("core", "max_map_length", fallback=1024))


class CreateKpiJobOperator(_KpiOperator):
    """Write the job record, before any webhook is called."""

    def execute(self, context: Context) -> list[int]:
        """Write the record, or complete that of a cleared run.

        Returns:
            The places on a page. With the pages, they make up the task instances.

        Raises:
            AggregatorError: The KPI database cannot be used; nothing was sent.
        """
        from aggregator.kpi import jobs

        sent = context["ti"].xcom_pull(task_ids=REGISTRY_TASK)
        ids = {id_ for page in sent for id_ in page}
        run = context["dag_run"]
        with self._transaction(context) as cursor:
            jobs.create(
                cursor,
                trace_id_of(context["dag_run"]),
                [kpi for kpi in _registry().kpis if kpi.id in ids],
                dag_id=run.dag_id,
                run_id=run.run_id,
                environment=KpiSettings.load().environment,
            )
        return list(range(len(sent[0]))) if sent else []


class TriggerKpiOperator(_KpiOperator):
    """Send one KPI to its n8n workflow, if that has not been done.

    Args:
        page: Ids of KPIs.
        place: Which of them this instance sends. Behind the end of the page it is skipped.
        **kwargs: As for every operator.
    """

    def __init__(self, *, page: list[str], place: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.page = page
        self.place = place

    @property
    def kpi_id(self) -> str:
        """The KPI, which names the instance."""
        return self.page[self.place] if self.place < len(self.page) else "–"

    def execute(self, context: Context) -> dict[str, Any]:
        """Claim the KPI, call the webhook, record the outcome.

        Returns:
            ``kpiId``, its ``status``, how many ``requests`` were sent, and ``retryCount``, how many of them followed
            the first one.

        Raises:
            N8nError: The workflow was not started, or ran and failed, or nobody knows. The text has n8n's words.
            PermanentError: The KPI is not in the registry any more; or an earlier try may have sent it.
            AirflowSkipException: Another run of the day has sent it; or the place is behind the end of the page.
            AggregatorError: The KPI database cannot be used. If it is so after the request, another try finds the KPI
                claimed, and does not send it again.
        """
        if self.place >= len(self.page):
            msg = "The last page has fewer KPIs than the others."
            raise AirflowSkipException(msg)
        from aggregator.kpi.jobs import Claim, Status

        kpi = next((kpi for kpi in _registry().kpis if kpi.id == self.kpi_id), None)
        if kpi is None:
            msg = (
                f"KPI {self.kpi_id} is not in the registry any more, or not active or invalid now; it was not sent. "
                "Add it again and clear this task, or clear the run, which leaves it out."
            )
            raise PermanentError(msg)
        owner = uuid4().hex
        claim, idempotency_key = self._claim(context, owner)
        if claim is Claim.ACCEPTED:
            self.log.info("n8n has accepted %s in an earlier try; it was not sent again.", self.kpi_id)
            return {"kpiId": self.kpi_id, "status": Status.TRIGGERED.value, "requests": 0, "retryCount": 0}
        if claim is Claim.UNKNOWN:
            msg = (
                f"KPI {self.kpi_id} may have been sent by an earlier try, whose outcome is unknown. It was not sent "
                "again, and clearing this task does not send it. Check n8n's executions. If the workflow did not run, "
                "trigger a new run with resend and this KPI."
            )
            raise PermanentError(msg)
        if claim is Claim.SENT_BY_ANOTHER_RUN:
            msg = (
                f"Another run of this day has sent {self.kpi_id} or is sending it, so it is left out here. To send it "
                "again, trigger a new run with resend and this KPI."
            )
            raise AirflowSkipException(msg)
        return self._send(context, kpi, owner, idempotency_key)

    def _claim(self, context: Context, owner: str) -> tuple[Any, str]:
        from aggregator.kpi import jobs

        ti, trace_id = context["ti"], trace_id_of(context["dag_run"])
        resend = context["params"]["resend"]
        # A clear raises the limit of tries, retries keep it.
        retry_group = f"{ti.map_index}/{ti.max_tries}"
        with self._transaction(context) as cursor:
            claim = jobs.claim(cursor, trace_id, self.kpi_id, owner, retry_group=retry_group, resend=resend)
            key = jobs.idempotency_key(cursor, trace_id, self.kpi_id) if claim is jobs.Claim.CLAIMED else ""
        return claim, key

    def _send(self, context: Context, kpi: Kpi, owner: str, idempotency_key: str) -> dict[str, Any]:
        from aggregator.kpi.jobs import Status
        from aggregator.n8n.errors import N8nError, N8nUnknownError
        from aggregator.n8n.hook import N8nHook

        trace_id = trace_id_of(context["dag_run"])
        try:
            delivery = N8nHook().post(
                kpi.webhook_url,
                payload(kpi, trace_id, _moment(context), KpiSettings.load().environment),
                idempotency_key=idempotency_key,
            )
        except AggregatorError as error:
            outcome = Status.UNKNOWN if isinstance(error, N8nUnknownError) else Status.FAILED
            retry_count = error.retry_count if isinstance(error, N8nError) else 0
            self._record(context, owner, outcome, retry_count, str(error))
            raise
        status = self._record(context, owner, Status.TRIGGERED, delivery.retry_count)
        self.log.info("kpi=%s status=%s retry_count=%d", kpi.id, status, delivery.retry_count)
        retry_count = delivery.retry_count
        return {"kpiId": kpi.id, "status": status, "requests": 1 + retry_count, "retryCount": retry_count}

    def _record(self, context: Context, owner: str, outcome: Any, retry_count: int, error: str | None = None) -> str:
        from tenacity import wait_exponential

        from aggregator.core.retrying import retrying
        from aggregator.kpi import jobs

        def attempt() -> str:
            with self._transaction(context) as cursor:
                status = jobs.record(
                    cursor,
                    trace_id_of(context["dag_run"]),
                    self.kpi_id,
                    owner,
                    outcome,
                    retry_count=retry_count,
                    error=error,
                )
            return status.value

        # Without it nobody would know what n8n has answered.
        again = retrying(attempts=4, wait=wait_exponential(), sleep=time.sleep, warn=self.log.warning)
        return again(attempt)


class SettleKpiJobOperator(ClosingOperator, _KpiOperator):
    """Wait, without a worker, for the reports that n8n owes, and say what became of the job (spec: KPI dispatch).

    Comes after everything that sends. It fails if it is not known of every KPI that it went well; its XCom, the summary
    of the job, is there all the same. It also deletes old job records.
    """

    def execute(self, context: Context) -> dict[str, Any]:
        """Settle the job, and wait if there is something to wait for.

        Returns:
            The job's summary, as :class:`aggregator.kpi.jobs.Summary` describes it.

        Raises:
            PermanentError: There is no job, or not every KPI went well.
            AirflowSkipException: The run had nothing to send.
            TransientError: The database could not be reached or was busy.
        """
        from aggregator.kpi import jobs
        from aggregator.kpi.trigger import KpiReportsTrigger

        if reason := context["ti"].xcom_pull(task_ids=REGISTRY_TASK, key=NOTHING_TO_SEND):
            raise AirflowSkipException(reason)
        configured = KpiSettings.load()
        trace_id = trace_id_of(context["dag_run"])
        with self._transaction(context) as cursor:
            jobs.settle(cursor, trace_id)
            awaited = jobs.awaited(cursor, trace_id, configured.job_timeout_minutes)
            jobs.prune(cursor, configured.kpi_jobs_keep_days)
        if awaited:
            self.log.info("Job %s: waiting for the reports of %d KPIs", trace_id, awaited)
            trigger = KpiReportsTrigger(trace_id, configured.job_timeout_minutes)
            timeout = timedelta(minutes=configured.job_timeout_minutes) + PATIENCE
            self.defer(trigger=trigger, method_name="conclude", timeout=timeout)
        return self.conclude(context)

    def conclude(self, context: Context, event: object = None) -> dict[str, Any]:  # noqa: ARG002 - Airflow passes it
        """Give up on what is overdue, and say what became of the job.

        Returns:
            The job's summary.

        Raises:
            PermanentError: Not every KPI went well.
            TransientError: The database could not be reached or was busy.
        """
        from aggregator.kpi import jobs

        trace_id = trace_id_of(context["dag_run"])
        with self._transaction(context) as cursor:
            jobs.expire(cursor, KpiSettings.load().job_timeout_minutes)
            summary = jobs.summary(cursor, trace_id)
        self.log.info("Job %s is %s: %s", trace_id, summary.status, summary.kpis)
        if summary.problems:
            # A failing task returns nothing, and whoever looks at the run shall still see what became of it.
            context["ti"].xcom_push("return_value", asdict(summary))
            raise PermanentError(_describe(summary))
        return asdict(summary)


def pages(ids: list[str], longest: int) -> list[list[str]]:
    """Split ids into pages of one length, but for the last: Airflow maps over no list that is longer than a limit.

    It does map over the product of two lists: pages, and places on a page.

    Args:
        ids: All of them.
        longest: The limit.

    Returns:
        As few pages as possible, whose last lacks as few places as possible.
    """
    if not ids:
        return []
    size = ceil(len(ids) / ceil(len(ids) / longest))
    return [ids[start : start + size] for start in range(0, len(ids), size)]


def payload(kpi: Kpi, trace_id: str, moment: datetime, environment: str) -> dict[str, Any]:
    """What n8n gets, the seed's ``IndividualKPITrigger``.

    Args:
        kpi: The registry's entry.
        trace_id: The job.
        moment: The run's.
        environment: ``ENVIRONMENT``.
    """
    return {
        "traceId": trace_id,
        "kpiId": kpi.id,
        "timestamp": f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "kpiType": kpi.type,
        "metadata": {
            "schedulerWorker": WORKER,
            "environment": environment,
            "kpiName": kpi.name,
            "kpiDescription": kpi.description,
        },
    }


def _registry() -> Registry:
    from aggregator.kpi import registry

    return registry.parse(Variable.get(registry.VARIABLE, default=None))


def _wanted(kpis: list[str] | None, registry: Registry) -> set[str]:
    """The ids of the param ``kpis``, where each is active; empty for all."""
    from aggregator.kpi.registry import normalized

    wanted = {normalized(id_): None for id_ in kpis or [] if id_.strip()}
    active = {kpi.id for kpi in registry.kpis}
    if missing := [id_ for id_ in wanted if id_ not in active]:
        named = ", ".join(map(repr, missing[:NAMED_AT_MOST]))
        more = f" and {len(missing) - NAMED_AT_MOST:,} more" if len(missing) > NAMED_AT_MOST else ""
        msg = (
            f"The param kpis names ids that are not active in the registry, or whose entry is invalid: {named}{more}. "
            "Nothing was sent. Correct the ids or activate the KPIs, then trigger a new run."
        )
        raise WrongParamsError(msg)
    return set(wanted)


def _moment(context: Context) -> datetime:
    run = context["dag_run"]
    return run.logical_date or run.run_after


def _day_is_over(context: Context) -> str | None:
    moment, started = _moment(context).astimezone(UTC), context["ti"].start_date.astimezone(UTC)
    if moment.date() >= started.date() or started - moment <= ON_TIME:
        return None
    return (
        f"The run is that of {moment.date()}, and {started.date()} has begun: nothing is sent. If it shall be, start a "
        "run with resend."
    )


def _describe(summary: Summary) -> str:
    named = [
        f"{problem.kpi_id} is {problem.status}" + (f" ({problem.error})" if problem.error else "")
        for problem in summary.problems[:NAMED_AT_MOST]
    ]
    # No report is awaited any more, so every unknown KPI is a problem.
    rest = sum(summary.kpis.get(status, 0) for status in ("pending", "failed", "timeout", "unknown")) - NAMED_AT_MOST
    more = f"; and {rest:,} more" if rest > 0 else ""
    advice = []
    if summary.kpis.keys() & {"failed", "pending"}:
        advice.append(
            "Fix the cause and clear the failed instances of trigger_kpi with everything downstream: only KPIs that "
            "are failed or pending are sent again."
        )
    if summary.kpis.keys() & {"unknown", "timeout"}:
        advice.append(
            "n8n may have run, or may still run, those that are unknown or timeout: a clear does not send them. Check "
            "n8n's executions. To send one again, trigger a new run with resend and its id."
        )
    return (
        f"Job {summary.trace_id} is {summary.status}: {'; '.join(named)}{more}. The job's record has every KPI. "
        f"{' '.join(advice)}"
    )
