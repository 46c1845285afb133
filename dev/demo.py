"""What `make demo` shows: every DAG, run by the scheduler for the latest window, and what each wrote."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
from rich.table import Table

from dev.sample.load import load_late_candles
from dev.stack import dag_ids

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from dev.stack import Stack

PREVIEWS = {
    "analytics_warmup_reset": (
        "Warm-up counters that are left: of today, and of domains that do not warm up",
        "select domain, day, sent from delivery.warmup_counters order by day, domain",
    ),
    "analytics_daily_reports": (
        "The campaigns with the most mails",
        """
        select date, campaign_id, sent, delivered, unique_opened, unique_clicked, bounced
        from analytics.campaign_daily_stats order by date desc, sent desc limit 3
        """,
    ),
    "analytics_score_distribution": (
        "Lead scores by organisation",
        """
        select date, organization_id, avg_score, p50, p90, p95, total_contacts
        from analytics.daily_score_distribution order by date desc, total_contacts desc limit 4
        """,
    ),
    "click_rollups": (
        "The hires with the most clicks",
        """
        select day, hire_id, valid_clicks, invalid_clicks
        from public.click_rollups order by day desc, valid_clicks desc limit 5
        """,
    ),
    "kpi_dispatch": (
        "What became of each KPI",
        """
        select kpi_id, name, status, retry_count, report_back, completed_at::time(0) as reported_at
        from kpi.job_kpis order by trace_id, kpi_id
        """,
    ),
    "ohlcv_aggregation": (
        "The latest bars of one hour, and how complete their candles are",
        """
        select distinct on (symbol) symbol, ts, open, high, low, close, volume, candles || '/' || expected_candles
            as candles, quality
        from ohlcv.bars where timeframe = '1h' order by symbol, ts desc
        """,
    ),
    "ohlcv_aggregation, its frontier": (
        "How far the bars of 15 minutes are: one feed sent a candle that is not a number",
        """
        select symbol, cursor, newest_source, lag, status, hard_fails, left(last_error, 44) as last_error
        from ohlcv.frontier where timeframe = '15m' order by lag desc limit 3
        """,
    ),
    "telemetry_daily": (
        "Telemetry by event type",
        """
        select date, event, count, unique_users, value_sum
        from public.telemetry_daily order by date desc, count desc limit 5
        """,
    ),
}
"""DAG → heading and query of a few of the rows it wrote."""

TRIGGERED = ("kpi_dispatch",)
"""DAGs that are started by hand: they have no latest window that a first start would run, only their next moment."""


@dataclass(frozen=True)
class Outcome:
    """How a DAG's run went.

    Attributes:
        run: The run, as Airflow's API describes it.
        tasks: Its task instances, likewise.
        results: What each task returned.
    """

    run: dict[str, Any]
    tasks: list[dict[str, Any]]
    results: dict[str, Any]

    @property
    def succeeded(self) -> bool:
        """Whether the run did."""
        return bool(self.run["state"] == "success")


def run(stack: Stack, say: Callable[[str], object]) -> list[Outcome]:
    """Wait for the run that the scheduler makes of each DAG, the latest window's, all at once; start what has none.

    Returns:
        One outcome a DAG, in the DAGs' alphabetical order, and one for late candles.
    """
    names = sorted(dag_ids())
    say(f"Running {', '.join(names)}")
    for dag_id in TRIGGERED:
        stack.airflow.start(dag_id)
    with ThreadPoolExecutor() as threads:
        outcomes = list(threads.map(lambda dag_id: _outcome(stack, dag_id), names))
    say("Running ohlcv_aggregation again, for candles that came late or were corrected")
    return [*outcomes, _outcome(stack, "ohlcv_aggregation", _run_after_late_candles(stack))]


def _run_after_late_candles(stack: Stack) -> str:
    with psycopg.connect(stack.products_url) as connection:
        load_late_candles(connection, datetime.now(UTC).date() - timedelta(days=1))
    return stack.airflow.start("ohlcv_aggregation")


def _outcome(stack: Stack, dag_id: str, run_id: str | None = None) -> Outcome:
    run = stack.airflow.wait_for_run(dag_id, run_id)
    tasks = stack.airflow.get(f"dags/{dag_id}/dagRuns/{run['dag_run_id']}/taskInstances")["task_instances"]
    results = {
        task["task_id"]: stack.airflow.result(dag_id, run["dag_run_id"], task["task_id"], task["map_index"])
        for task in tasks
        if task["state"] == "success"
    }
    return Outcome(run, tasks, results)


def report(stack: Stack, outcomes: list[Outcome], console: Console) -> int:
    """Print what the runs wrote and how long they took.

    Returns:
        0 if all of them succeeded, else 1.
    """
    table = Table(
        "DAG", "data interval (UTC)", "state", "what it did", "seconds", title="Last night, by Airflow's scheduler"
    )
    for outcome in outcomes:
        table.add_row(
            outcome.run["dag_id"],
            f"{_minute(outcome.run['data_interval_start'])} – {_minute(outcome.run['data_interval_end'])}",
            outcome.run["state"],
            "\n".join(f"{task}: {_words(result)}" for task, result in outcome.results.items()),
            f"{sum(task['duration'] or 0 for task in outcome.tasks):.1f}",
        )
    console.print(table)
    failed = [outcome for outcome in outcomes if not outcome.succeeded]
    for outcome in failed:
        for task in outcome.tasks:
            run = outcome.run
            log = stack.airflow.log(
                run["dag_id"], run["dag_run_id"], task["task_id"], task["try_number"], task["map_index"]
            )
            console.print(
                f"[red]{run['dag_id']}.{task['task_id']} is {task['state']}[/]; its log ends with:\n{log[-3000:]}"
            )
    _previews(stack, console)
    return 1 if failed else 0


def _previews(stack: Stack, console: Console) -> None:
    with psycopg.connect(stack.products_url) as connection:
        for heading, query in PREVIEWS.values():
            cursor = connection.execute(query)
            table = Table(*(column.name for column in cursor.description or []), title=heading)
            for row in cursor:
                table.add_row(*map(str, row))
            console.print(table)


def _minute(moment: str) -> str:
    return datetime.fromisoformat(moment).strftime("%Y-%m-%d %H:%M")


def _words(result: Any) -> str:
    if isinstance(result, dict):
        return ", ".join(f"{name} {_words(value)}" for name, value in result.items())
    return f"{len(result)} listed" if isinstance(result, list) else str(result)
