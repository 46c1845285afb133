"""The beginning and the end of a KPI job; what is between them sends the KPIs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from aggregator import settings
from aggregator.errors import HardError
from aggregator.kpi.trace_id import trace_id_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from aggregator.kpi.jobs import Summary

NAMED_AT_MOST = 10
"""KPIs that an error names; the job's record has them all."""

PATIENCE = timedelta(minutes=5)
"""How much longer than the reports' own time the wait for them may take, before it is begun anew."""


class CreateKpiJobOperator(BaseOperator):
    """Read the registry and write the run's job, every KPI pending (spec: KPI dispatch).

    A backfill, and a run whose job record may have been deleted meanwhile, sends nothing unless its param ``resend``
    says so: it is skipped.

    Args:
        conn_id: Airflow connection of the KPI database.
        **kwargs: As for every operator.
    """

    ui_color = "#dfe9f6"

    def __init__(self, *, conn_id: str = "kpi_db", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Write the job.

        Returns:
            The KPIs to send, as the registry has them, without what n8n does not get.

        Raises:
            HardError: There is no registry that could be read; no job was written.
            TransientError: The database could not be reached or was busy; no job was written.
        """
        from airflow.sdk import Variable

        from aggregator.hooks.postgres import PostgresTransactionHook
        from aggregator.kpi import jobs, registry

        configured = settings.load()
        run = context["dag_run"]
        _refuse_old(context, timedelta(days=configured.kpi_jobs_keep_days))
        found = registry.parse(Variable.get(registry.VARIABLE, default=None))
        for name, reason in found.dropped:
            self.log.warning("KPI %s is invalid and not sent: %s", name, reason)
        if not found.kpis:
            self.log.warning("The KPI registry has no active KPIs, so there is nothing to send.")
        trace_id = trace_id_of(run)
        with PostgresTransactionHook(self.conn_id).task_transaction(context) as cursor:
            jobs.create(
                cursor,
                trace_id,
                found.kpis,
                dag_id=run.dag_id,
                run_id=run.run_id,
                environment=configured.environment,
            )
        self.log.info("Job %s: %d KPIs", trace_id, len(found.kpis))
        return [kpi.model_dump(by_alias=True, exclude={"active", "analysis_config", "metadata"}) for kpi in found.kpis]


class SettleKpiJobOperator(BaseOperator):
    """Wait, without a worker, for the reports that n8n owes, and say what became of the job (spec: KPI dispatch).

    Comes after everything that sends. It fails if it is not known of every KPI that it went well; its XCom, the summary
    of the job, is there all the same. It also deletes old job records.

    Args:
        conn_id: Airflow connection of the KPI database.
        poll_every: Time between two looks for reports.
        **kwargs: As for every operator.
    """

    ui_color = "#dfe9f6"

    def __init__(
        self, *, conn_id: str = "kpi_db", poll_every: timedelta = timedelta(seconds=10), **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id
        self.poll_every = poll_every

    def execute(self, context: Context) -> dict[str, Any]:
        """Settle the job, and wait if there is something to wait for.

        Returns:
            The job's summary, as :class:`aggregator.kpi.jobs.Summary` describes it.

        Raises:
            HardError: There is no job, or not every KPI went well.
            TransientError: The database could not be reached or was busy.
        """
        from aggregator.hooks.postgres import PostgresTransactionHook
        from aggregator.kpi import jobs
        from aggregator.triggers.kpi import KpiReportsTrigger

        configured = settings.load()
        trace_id = trace_id_of(context["dag_run"])
        with PostgresTransactionHook(self.conn_id).task_transaction(context) as cursor:
            jobs.settle(cursor, trace_id)
            awaited = jobs.awaited(cursor, trace_id, configured.job_timeout_minutes)
            jobs.prune(cursor, configured.kpi_jobs_keep_days)
        if awaited:
            self.log.info("Job %s: waiting for the reports of %d KPIs", trace_id, awaited)
            trigger = KpiReportsTrigger(
                self.conn_id, trace_id, configured.job_timeout_minutes, self.poll_every.total_seconds()
            )
            timeout = timedelta(minutes=configured.job_timeout_minutes) + PATIENCE
            self.defer(trigger=trigger, method_name="conclude", timeout=timeout)
        return self.conclude(context)

    def conclude(self, context: Context, event: object = None) -> dict[str, Any]:  # noqa: ARG002 - Airflow passes it
        """Give up on what is overdue, and say what became of the job.

        Returns:
            The job's summary.

        Raises:
            HardError: Not every KPI went well.
            TransientError: The database could not be reached or was busy.
        """
        from aggregator.hooks.postgres import PostgresTransactionHook
        from aggregator.kpi import jobs

        trace_id = trace_id_of(context["dag_run"])
        with PostgresTransactionHook(self.conn_id).task_transaction(context) as cursor:
            jobs.expire(cursor, settings.load().job_timeout_minutes)
            summary = jobs.summary(cursor, trace_id)
        self.log.info("Job %s is %s: %s", trace_id, summary.status, summary.kpis)
        if summary.problems:
            # A failing task returns nothing, and whoever looks at the run shall still see what became of it.
            context["ti"].xcom_push("return_value", summary.as_dict())
            raise HardError(_describe(summary))
        return summary.as_dict()


def _refuse_old(context: Context, kept: timedelta) -> None:
    run = context["dag_run"]
    if context["params"].get("resend"):
        return
    if run.run_type == "backfill":
        msg = "A backfill sends no KPIs: what n8n does, it does now. Start it with resend=true to send them."
        raise AirflowSkipException(msg)
    if run.run_after < datetime.now(UTC) - kept:
        msg = "This run is older than job records are kept, so nobody knows what it sent. resend=true sends all again."
        raise AirflowSkipException(msg)


def _describe(summary: Summary) -> str:
    named = [
        f"{problem.kpi_id} is {problem.status}" + (f" ({problem.error})" if problem.error else "")
        for problem in summary.problems[:NAMED_AT_MOST]
    ]
    return (
        f"Job {summary.trace_id} is {summary.status}: {'; '.join(named)}"
        f"{'; and more' if len(summary.problems) > NAMED_AT_MOST else ''}. The job's record has every KPI. "
        "Clear the tasks of those that failed, and what comes after them, to send them again."
    )
