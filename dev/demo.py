"""``make demo``: every DAG, run by the scheduler for its latest interval, and the rows it wrote."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
from rich.table import Table

from dev.airflow_api import NotYetError, wait
from dev.sample.load import load_late_candles
from dev.sample.ohlcv import POISONED
from dev.stack import dag_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from dev.stack import Stack

PREVIEWS = {
    "Warm-up counters after the reset: counters of today, and of domains that do not warm up": """
        select domain, day, sent from delivery.warmup_counters order by day, domain
        """,
    "Campaigns with the most mails": """
        select date, campaign_id as campaign, sent, delivered, bounced,
            unique_opened as "opened by", unique_clicked as "clicked by"
        from analytics.campaign_daily_stats order by date desc, sent desc limit 3
        """,
    "Lead scores by organization": """
        select date, organization_id as organization, total_contacts as contacts, avg_score as average, p50, p90, p95
        from analytics.daily_score_distribution order by date desc, total_contacts desc limit 4
        """,
    "Hires with the most clicks": """
        select day, hire_id as hire, valid_clicks as valid, invalid_clicks as invalid
        from public.click_rollups order by day desc, valid_clicks desc limit 5
        """,
    "KPI results": """
        select kpi_id as kpi, name, status, completed_at as "n8n reported at"
        from kpi.job_kpis order by trace_id, kpi_id
        """,
    "Latest 1h bars, with the completeness of their candles": """
        select distinct on (symbol) symbol, ts as "from", open, high, low, close, volume,
            candles || '/' || expected_candles as candles, quality
        from ohlcv.bars where timeframe = '1h' order by symbol, ts desc
        """,
    f"Symbols whose 15m bars are furthest behind ({POISONED} has an invalid candle on purpose)": """
        select symbol, cursor as "built up to", newest_source as "candles up to", last_error as error
        from ohlcv.frontier where timeframe = '15m' order by lag desc limit 3
        """,
    "Telemetry by event type": """
        select date, event, count, unique_users as users, value_sum as "sum of values"
        from public.telemetry_daily order by date desc, count desc limit 5
        """,
}
"""Heading → query of some rows that the DAGs wrote."""

TOTALS = {"bars", "processed"}
"""Counts that are sums of other counts."""

SLOW = 900
"""Time limit of a run on a busy machine, in seconds."""

TRIGGERED = ("kpi_dispatch",)
"""DAGs that the demo starts by hand: the scheduler runs them at their next scheduled time only."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of a run.

    Attributes:
        run: The run, from Airflow's API.
        tasks: Its task instances, from Airflow's API.
        result: Counts of its last successful task.
    """

    run: dict[str, Any]
    tasks: list[dict[str, Any]]
    result: str

    @property
    def succeeded(self) -> bool:
        """Whether the run succeeded."""
        return bool(self.run["state"] == "success")


def run(stack: Stack, say: Callable[[str], object]) -> list[Outcome]:
    """Wait for the first run of each DAG at the same time, and start the DAGs that have no run.

    Returns:
        One outcome per DAG in alphabetical order, and one for late candles.
    """
    names = sorted(dag_ids())
    say(f"Running {', '.join(names)}")
    for dag_id in TRIGGERED:
        stack.airflow.start(dag_id)
    with ThreadPoolExecutor() as threads:
        outcomes = list(threads.map(lambda dag_id: _outcome(stack, dag_id), names))
    say("Running ohlcv_aggregation again, for late and corrected candles")
    return [*outcomes, _outcome(stack, "ohlcv_aggregation", _run_after_late_candles(stack))]


def _run_after_late_candles(stack: Stack) -> str:
    with psycopg.connect(stack.products_url) as connection:
        load_late_candles(connection, datetime.now(UTC).date() - timedelta(days=1))
    return stack.airflow.start("ohlcv_aggregation")


def _outcome(stack: Stack, dag_id: str, run_id: str | None = None) -> Outcome:
    # The scheduler creates one run of the latest interval at the start, and may create more during the wait.
    run = stack.airflow.wait_for_run(
        dag_id, run_id or wait(partial(_first_run, stack, dag_id), seconds=SLOW), seconds=SLOW
    )
    tasks = stack.airflow.get(f"dags/{dag_id}/dagRuns/{run['dag_run_id']}/taskInstances")["task_instances"]
    last = max((task for task in tasks if task["state"] == "success"), key=lambda task: task["end_date"], default=None)
    if last is None:
        return Outcome(run, tasks, "")
    result = stack.airflow.result(dag_id, run["dag_run_id"], last["task_id"], last["map_index"])
    return Outcome(run, tasks, ", ".join(_counts(result)))


def _first_run(stack: Stack, dag_id: str) -> str:
    runs = stack.airflow.runs(dag_id)
    if not runs:
        msg = f"{dag_id} has no run"
        raise NotYetError(msg)
    return str(runs[-1]["dag_run_id"])


def report(stack: Stack, outcomes: list[Outcome], console: Console) -> int:
    """Print the result and the duration of every run.

    Returns:
        0 if all runs succeeded, else 1.
    """
    table = Table("DAG", "data interval (UTC)", "state", "result", "seconds", title="Runs of the latest interval")
    for outcome in outcomes:
        table.add_row(
            outcome.run["dag_id"],
            f"{_cell(datetime.fromisoformat(outcome.run['data_interval_start']))} – "
            f"{_cell(datetime.fromisoformat(outcome.run['data_interval_end']))}",
            outcome.run["state"],
            outcome.result,
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
            console.print(f"[red]{run['dag_id']}.{task['task_id']} is {task['state']}.[/] Log:\n{log[-3000:]}")
    _previews(stack, console)
    if failed:
        names = ", ".join(outcome.run["dag_id"] for outcome in failed)
        console.print(
            f"[red]{len(failed)} of {len(outcomes)} runs failed: {names}.[/] The end of each log is printed above."
        )
        return 1
    console.print(
        f"[green]{len(outcomes)} runs of {len(dag_ids())} DAGs succeeded.[/] `failed 1` is expected: the feed of "
        f"{POISONED} sent a candle with an invalid price on purpose. The other symbols continue. In a stack of "
        "`make up`, the tasks of this symbol are disabled within 20 minutes.\n"
        "The stack of the demo is removed. Run `make up` to start one that keeps running, with the Airflow UI.",
        soft_wrap=True,
        highlight=False,
    )
    return 0


def _previews(stack: Stack, console: Console) -> None:
    with psycopg.connect(stack.products_url) as connection:
        for heading, query in PREVIEWS.items():
            cursor = connection.execute(query)
            table = Table(*(column.name for column in cursor.description or []), title=heading)
            for row in cursor:
                table.add_row(*map(_cell, row))
            console.print(table)


def _cell(value: Any) -> str:
    """Format a value: a timestamp in UTC to the minute, an empty string for null."""
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M}"
    return "" if value is None else str(value)


def _counts(result: dict[str, Any]) -> Iterator[str]:
    """Yield the counts of a task's result that are not zero, nested objects included."""
    for name, value in result.items():
        if isinstance(value, dict):
            yield from _counts(value)
        elif isinstance(value, int) and not isinstance(value, bool) and value:
            if name not in TOTALS:
                yield f"{name.replace('_', ' ')} {value}"
        elif isinstance(value, list) and value and name in {"errors", "problems"}:
            yield f"{name} {len(value)}"
