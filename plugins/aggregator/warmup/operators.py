"""Operator that resets the daily counters of domains that warm up."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from aggregator.core.data_interval import data_interval
from aggregator.core.errors import PermanentError, TransientError
from aggregator.core.settings import AnalyticsSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from aggregator.warmup.counter_store import WarmupCounterStore


class WarmupResetOperator(BaseOperator):
    """Reset the daily counter of each domain that warms up, in the store of the setting ``WARMUP_COUNTER_STORE``.

    Counters of days after the run's day stay, so any run can be cleared at any time (spec: analytics suite, warmup
    reset).

    Args:
        sql: SELECT of organization and domain, or its file. It may use ``%(data_interval_start)s`` and
            ``%(data_interval_end)s``.
        conn_id: Connection of the database with the domains. With the store ``postgres`` it also has the counters.
        **kwargs: As for every operator.
    """

    template_fields: Sequence[str] = ("sql",)
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers = {"sql": "postgresql"}  # noqa: RUF012 - declared so by Airflow
    ui_color = "#f6dfe3"

    def __init__(self, *, sql: str, conn_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sql = sql
        self.conn_id = conn_id

    def execute(self, context: Context) -> dict[str, int]:
        """Reset the counters of the run's day.

        Returns:
            ``domains``, the number of domains that warm up; ``reset`` and ``kept``, the numbers of removed counters and
            of counters of later days.

        Raises:
            TransientError: A store could not be reached or was busy, or some counters failed. A retry resets them.
            PermanentError: A store refused the request, or some counters.
        """
        from aggregator.postgres.hook import PostgresTransactionHook
        from aggregator.warmup.counter_store import PostgresCounterStore, S3CounterStore, WarmingDomain

        window = data_interval(context)
        transaction = partial(PostgresTransactionHook(self.conn_id).task_transaction, context)
        with transaction(read_only=True) as cursor:
            cursor.execute(self.sql, {"data_interval_start": window.start, "data_interval_end": window.end})
            domains = [WarmingDomain(*row) for row in cursor]
        in_postgres = AnalyticsSettings.load().warmup_counter_store == "postgres"
        store: WarmupCounterStore = PostgresCounterStore(transaction) if in_postgres else S3CounterStore()
        report = store.reset_daily_counters(domains, window.end)
        if report.failed:
            reasons = ", ".join(f"{code} for {count}" for code, count in report.failed.items())
            raise (TransientError if report.is_transient else PermanentError)(
                f"{sum(report.failed.values())} warm-up counters could not be reset: {reasons}. {report.reset} others "
                "were reset. Fix the cause and clear this task: it resets the remaining counters."
            )
        result = {"domains": len(domains), "reset": report.reset, "kept": report.kept}
        self.log.info("Reset warm-up counters: before=%s domains=%d reset=%d kept=%d", window.end, *result.values())
        return result
