"""Operators of ``kpi_dispatch``: read the registry, send all KPIs, show the outcome of each, finalize the job.

Each KPI is sent once: its claim is committed before the request, its outcome after it. ``aggregator.kpi.jobs`` has a
table of the states. XCom holds ids only. Each task reads the registry, so a cleared task sends the current entry.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, timedelta
from math import ceil
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow.sdk import BaseOperator, Variable
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowSkipException

from aggregator.core.errors import AggregatorError, PermanentError, TransientError, WrongParamsError
from aggregator.core.operators import ClosingOperator
from aggregator.core.settings import KpiSettings
from aggregator.kpi.payload import Job
from aggregator.kpi.trace_id import trace_id_of

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import psycopg
    from airflow.sdk import Context
    from psycopg.rows import TupleRow

    from aggregator.kpi.dispatch import Outcome, Sender
    from aggregator.kpi.jobs import Claim, Sent, Summary
    from aggregator.kpi.registry import Kpi, Registry

REGISTRY_TASK = "read_registry"
"""Id of the task whose XCom holds the ids to send."""

NOTHING_TO_SEND = "nothing_to_send"
"""XCom key of the reason why the run is skipped."""

MAX_NAMED = 10
"""Maximum number of KPIs that an error names. The job record has all of them."""

MAX_DELAY = timedelta(hours=1)
"""Maximum delay with which a run still sends after its UTC day has ended."""

DEFERRAL_MARGIN = timedelta(minutes=5)
"""Time after which Airflow ends a deferral whose trigger did not end by itself."""


class _KpiOperator(BaseOperator):
    ui_color = "#ead7e8"

    def _transaction(
        self, context: Context, *, read_only: bool = False
    ) -> AbstractContextManager[psycopg.Cursor[TupleRow]]:
        from aggregator.kpi import jobs
        from aggregator.postgres.hook import PostgresTransactionHook

        return PostgresTransactionHook(jobs.CONNECTION).task_transaction(context, read_only=read_only)


class ReadKpiRegistryOperator(_KpiOperator):
    """Select the KPIs that the run sends.

    Runs for past days are skipped. A run counts as past when it starts after its UTC day ended and more than
    `MAX_DELAY` late, unless it already has a job record. KPIs that another run of the same day sent are left out. The
    param ``resend`` disables both rules. The param ``kpis`` selects KPIs by id.
    """

    def execute(self, context: Context) -> list[list[str]]:
        """Read and validate the registry.

        Returns:
            KPI ids in batches, none longer than Airflow's ``max_map_length``.

        Raises:
            RegistryError: The registry is missing, not JSON or too large. No job record was created.
            WrongParamsError: The param ``kpis`` contains ids that are not active. No job record was created.
            AirflowSkipException: The run is for a past day.
            AggregatorError: The KPI database is unavailable.
        """
        from aggregator.kpi import jobs

        registry = _registry()
        for dropped in registry.dropped:
            self.log.warning("Registry entry dropped and not sent: kpi=%s reason=%s", dropped.name, dropped.reason)
        trace_id = trace_id_of(context["dag_run"])
        params = context["params"]
        selected = _selected(params["kpis"], registry)
        with self._transaction(context, read_only=True) as cursor:
            has_job, others = jobs.sent_by_other_runs(cursor, trace_id)
        if params["resend"]:
            others = {}
        elif not has_job and (reason := _past_day(context)):
            context["ti"].xcom_push(NOTHING_TO_SEND, reason)
            raise AirflowSkipException(reason)
        left_out = [id_ for id_ in selected if id_ in others]
        if left_out:
            self.log.warning(
                "Another run of this day sent KPIs, so this run does not: kpis=%d first=%s sent_by=%s. To repeat them, "
                "trigger a new run with resend.",
                len(left_out),
                left_out[0],
                others[left_out[0]],
            )
        ids = [id_ for id_ in selected if id_ not in others]
        if not ids:
            self.log.warning("No KPI to send: active=%d", len(registry.kpis))
        self.log.info(
            "Registry read: job=%s kpis=%d dropped=%d left_out=%d",
            trace_id,
            len(ids),
            len(registry.dropped),
            len(left_out),
        )
        return batches(ids, conf.getint("core", "max_map_length", fallback=1024))


class SendKpisOperator(_KpiOperator):
    """Write the job record, then send all KPIs at once. A KPI that fails does not fail this task."""

    _sender: Sender | None = None

    def execute(self, context: Context) -> list[int]:
        """Create the job record, or update the record of a cleared run, and send its KPIs that were not sent.

        Returns:
            The indices of a full batch. The task instances are the product of batches and indices.

        Raises:
            PermanentError: A setting is invalid. Nothing was sent.
            AggregatorError: The KPI database is unavailable. Nothing was sent.
        """
        from aggregator.kpi import jobs

        run, job, settings = context["dag_run"], Job.of(context), KpiSettings.load()
        batches_ = context["ti"].xcom_pull(task_ids=REGISTRY_TASK)
        ids = {id_ for batch in batches_ for id_ in batch}
        kpis = [kpi for kpi in _registry().kpis if kpi.id in ids]
        with self._transaction(context) as cursor:
            jobs.create(
                cursor, job.trace_id, kpis, dag_id=run.dag_id, run_id=run.run_id, environment=settings.environment
            )
            unsent = jobs.unsent(cursor, job.trace_id, retry_group=job.retry_group, resend=job.resend)
        self.log.info("Job record written: job=%s kpis=%d unsent=%d", job.trace_id, len(kpis), len(unsent))
        if unsent:
            self._send([kpi for kpi in kpis if kpi.id in unsent], context, settings.kpi_requests_at_once)
        return list(range(len(batches_[0]))) if batches_ else []

    def on_kill(self) -> None:
        """Start no more requests. Airflow kills the process after five seconds, so fewer KPIs become ``unknown``."""
        if self._sender:
            self._sender.stop()

    def _send(self, kpis: list[Kpi], context: Context, at_once: int) -> None:
        from aggregator.kpi.dispatch import Database, Sender

        job = Job.of(context)
        with closing(Database(context)) as database:
            self._sender = Sender(job, database, at_once=at_once)
            outcomes = asyncio.run(self._sender.send(kpis))
        counts = " ".join(f"{outcome}={number}" for outcome, number in sorted(outcomes.items()))
        self.log.info("KPIs sent: job=%s %s", job.trace_id, counts)


class TriggerKpiOperator(_KpiOperator):
    """Show the outcome of one KPI. Send the KPI if it is unsent or failed.

    Args:
        batch: KPI ids.
        index: Position in the batch of this instance's KPI. Beyond the end of the batch, the instance is skipped.
        **kwargs: Arguments of `BaseOperator`.
    """

    def __init__(self, *, batch: list[str], index: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.batch = batch
        self.index = index

    @property
    def kpi_id(self) -> str:
        """Id of the KPI, and the name of the instance in the UI."""
        return self.batch[self.index] if self.index < len(self.batch) else "–"

    def execute(self, context: Context) -> dict[str, Any]:
        """Claim the KPI. If the claim is granted, call the webhook and record the outcome.

        If the task ``send_kpis`` failed to send the KPI, the first try raises its error and sends nothing.

        Returns:
            ``kpiId``, ``status``, ``requests`` (number of requests) and ``retryCount`` (requests after the first one),
            from the job record.

        Raises:
            N8nError: The workflow was not started, it ran and failed, or its outcome is unknown.
            TransientError: ``send_kpis`` could not start the workflow. The next try sends the KPI.
            PermanentError: The KPI is no longer in the registry, ``send_kpis`` failed permanently, or an earlier try
                may have sent the KPI.
            AirflowSkipException: Another run of the day sent it, or the index is beyond the end of the batch.
            AggregatorError: The KPI database is unavailable. If this happens after the request, the next try finds the
                claim and does not send the KPI again.
        """
        from aggregator.kpi import jobs

        if self.index >= len(self.batch):
            msg = "The last batch has fewer KPIs than the others."
            raise AirflowSkipException(msg)
        job, owner = Job.of(context), uuid4().hex
        with self._transaction(context) as cursor:
            claim = jobs.claim(cursor, job.trace_id, self.kpi_id, owner, retry_group=job.retry_group, resend=job.resend)
            sent = None if claim is jobs.Claim.SENT_BY_ANOTHER_RUN else jobs.read(cursor, job.trace_id, self.kpi_id)
            # Before the commit, so that an error undoes the claim.
            kpi = self._registry_entry() if claim is jobs.Claim.CLAIMED else None
        if kpi and sent:
            sent = self._send(context, kpi, owner, sent)
        elif claim is not jobs.Claim.ACCEPTED or not sent:
            raise self._not_sent(claim, sent)
        self.log.info("KPI accepted by n8n: kpi=%s status=%s requests=%d", self.kpi_id, sent.status, sent.requests)
        return {
            "kpiId": self.kpi_id,
            "status": sent.status.value,
            "requests": sent.requests,
            "retryCount": sent.retry_count,
        }

    def _registry_entry(self) -> Kpi:
        for kpi in _registry().kpis:
            if kpi.id == self.kpi_id:
                return kpi
        msg = (
            f"KPI {self.kpi_id} is not active in the registry any more, or invalid. It was not sent. Correct the "
            "registry and clear this task, or clear the run to leave the KPI out."
        )
        raise PermanentError(msg)

    def _not_sent(self, claim: Claim, sent: Sent | None) -> Exception:
        from aggregator.kpi.jobs import Claim

        if claim is Claim.SENT_BY_ANOTHER_RUN:
            return AirflowSkipException(
                f"Another run of this day sent KPI {self.kpi_id} or sends it now. This run does not send it, and its "
                "job record does not contain it. To repeat it, trigger a new run with resend and this id."
            )
        if claim is Claim.FAILED and sent:
            if sent.retry_after is not None:
                return TransientError(f"{sent.error}", retry_after=sent.retry_after)
            return PermanentError(f"{sent.error}")
        return PermanentError(
            f"KPI {self.kpi_id} may have been sent, so it is not sent again, also not after a clear. "
            f"{sent.error if sent else ''} If the workflow did not run, trigger a new run with resend and this id."
        )

    def _send(self, context: Context, kpi: Kpi, owner: str, sent: Sent) -> Sent:
        from aggregator.kpi.dispatch import outcome_of
        from aggregator.n8n.errors import N8nError
        from aggregator.n8n.hook import N8nHook

        try:
            delivery = N8nHook().post(
                kpi.webhook_url,
                Job.of(context).payload(kpi),
                idempotency_key=sent.idempotency_key,
                # While n8n is down, every KPI retries. One request a try is enough: Airflow waits between tries.
                while_unavailable=context["ti"].try_number == 1,
            )
        except AggregatorError as error:
            outcome, retry_after = outcome_of(error)
            requests = 1 + error.retry_count if isinstance(error, N8nError) else 0
            self._record(context, owner, outcome, requests=requests, retry_after=retry_after, error=str(error))
            raise
        return self._record(context, owner, "triggered", requests=1 + delivery.retry_count)

    def _record(self, context: Context, owner: str, outcome: Outcome, **more: Any) -> Sent:
        from tenacity import Retrying, wait_exponential

        from aggregator.core.retrying import retry_options
        from aggregator.kpi import jobs

        trace_id = trace_id_of(context["dag_run"])

        def attempt() -> Sent:
            with self._transaction(context) as cursor:
                jobs.record(cursor, trace_id, self.kpi_id, owner, outcome, **more)
                return jobs.read(cursor, trace_id, self.kpi_id)

        # If this fails, the outcome is lost and the KPI becomes unknown.
        options = retry_options(attempts=4, wait=wait_exponential(), sleep=time.sleep, warn=self.log.warning)
        return Retrying(**options)(attempt)


class FinalizeKpiJobOperator(ClosingOperator, _KpiOperator):
    """Wait for n8n's reports without a worker slot, then fail unless every KPI succeeded.

    The XCom holds the summary of the job, also if the task fails. The task also deletes old job records.
    """

    def execute(self, context: Context) -> dict[str, Any]:
        """Finalize the job, and defer if reports are missing. Return :class:`aggregator.kpi.jobs.Summary` as a dict.

        Raises:
            PermanentError: There is no job record, or a KPI did not succeed.
            AirflowSkipException: The run had nothing to send.
            TransientError: The database is unavailable or busy.
        """
        from aggregator.kpi import jobs
        from aggregator.kpi.trigger import KpiReportsTrigger

        if reason := context["ti"].xcom_pull(task_ids=REGISTRY_TASK, key=NOTHING_TO_SEND):
            raise AirflowSkipException(reason)
        settings = KpiSettings.load()
        trace_id = trace_id_of(context["dag_run"])
        with self._transaction(context) as cursor:
            jobs.finalize(cursor, trace_id)
            awaited = jobs.awaited(cursor, trace_id, settings.job_timeout_minutes)
            pruned = jobs.prune(cursor, settings.kpi_jobs_keep_days)
        self.log.info("Sending finished: job=%s awaited_reports=%d pruned_jobs=%d", trace_id, awaited, pruned)
        if awaited:
            # Airflow stores the method name: keep it, or tasks that are deferred during an upgrade fail.
            self.defer(
                trigger=KpiReportsTrigger(trace_id, settings.job_timeout_minutes),
                method_name="conclude",
                timeout=timedelta(minutes=settings.job_timeout_minutes) + DEFERRAL_MARGIN,
            )
        return self.conclude(context)

    def conclude(self, context: Context, event: object = None) -> dict[str, Any]:  # noqa: ARG002 - Airflow passes it
        """Mark overdue reports as timed out, and return :class:`aggregator.kpi.jobs.Summary` as a dict.

        Raises:
            PermanentError: A KPI did not succeed.
            TransientError: The database is unavailable or busy.
        """
        from aggregator.kpi import jobs

        trace_id = trace_id_of(context["dag_run"])
        with self._transaction(context) as cursor:
            jobs.expire(cursor, KpiSettings.load().job_timeout_minutes)
            summary = jobs.summary(cursor, trace_id)
        counts = " ".join(f"{status}={kpis}" for status, kpis in summary.kpis.items())
        self.log.info("Job finalized: job=%s status=%s %s", trace_id, summary.status, counts)
        if summary.problems:
            # A failing task returns nothing.
            context["ti"].xcom_push("return_value", asdict(summary))
            raise PermanentError(_describe(summary))
        return asdict(summary)


def batches(ids: list[str], max_length: int) -> list[list[str]]:
    """Split ids into batches of equal length; only the last batch may be shorter.

    Airflow does not map over a list longer than ``max_map_length``, but it maps over the product of two lists: batches,
    and indices in a batch.

    Args:
        ids: KPI ids.
        max_length: Maximum number of batches, and of ids in a batch.

    Returns:
        As few batches as possible, with the last one as long as possible.
    """
    if not ids:
        return []
    size = ceil(len(ids) / ceil(len(ids) / max_length))
    return [ids[start : start + size] for start in range(0, len(ids), size)]


def _registry() -> Registry:
    from aggregator.kpi import registry

    return registry.parse(Variable.get(registry.VARIABLE, default=None))


def _selected(kpis: list[str] | None, registry: Registry) -> list[str]:
    """The active ids that the param ``kpis`` selects, in the registry's order; all of them if the param is empty."""
    from aggregator.kpi.registry import normalized

    active = dict.fromkeys(kpi.id for kpi in registry.kpis)
    wanted = dict.fromkeys(normalized(id_) for id_ in kpis or [] if id_.strip())
    if missing := [id_ for id_ in wanted if id_ not in active]:
        named = ", ".join(map(repr, missing[:MAX_NAMED]))
        more = f" and {len(missing) - MAX_NAMED:,} more" if len(missing) > MAX_NAMED else ""
        msg = (
            f"The param kpis contains ids that are not active in the registry or invalid: {named}{more}. Nothing was "
            "sent. Correct the ids or activate the KPIs, then trigger a new run."
        )
        raise WrongParamsError(msg)
    return [id_ for id_ in active if not wanted or id_ in wanted]


def _past_day(context: Context) -> str | None:
    """Why the run is skipped, if it is for a past day."""
    due, started = Job.of(context).run_time.astimezone(UTC), context["ti"].start_date.astimezone(UTC)
    if due.date() >= started.date() or started - due <= MAX_DELAY:
        return None
    return (
        f"The run is for {due.date()}, but it started on {started.date()}. Nothing was sent. To send anyway, trigger a "
        "run with resend."
    )


def _describe(summary: Summary) -> str:
    named = [
        f"{problem.kpi_id} is {problem.status}" + (f" ({problem.error})" if problem.error else "")
        for problem in summary.problems[:MAX_NAMED]
    ]
    # No report is awaited any more, so every unknown KPI is a problem.
    rest = sum(summary.kpis.get(status, 0) for status in ("pending", "failed", "timeout", "unknown")) - MAX_NAMED
    more = f"; and {rest:,} more" if rest > 0 else ""
    advice = []
    if summary.kpis.keys() & {"failed", "pending"}:
        advice.append(
            "Fix the cause, then clear the failed instances of trigger_kpi with downstream tasks. Only failed and "
            "pending KPIs are sent again."
        )
    if summary.kpis.keys() & {"unknown", "timeout"}:
        advice.append(
            "KPIs that are unknown or timeout may have run in n8n, so a clear does not send them. Check n8n's "
            "executions. To repeat one, trigger a new run with resend and its id."
        )
    return (
        f"Job {summary.trace_id} is {summary.status}: {'; '.join(named)}{more}. The job record has every KPI. "
        f"{' '.join(advice)}"
    )
