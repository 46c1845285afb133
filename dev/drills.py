"""Drills of ``make drills``: prove in real time, on a temporary stack, that each incident raises one correct alert.

A month is backfilled. The receiver of alerts is down for a minute, in three ways. The scheduler is stopped until data
is stale, and started again. Meanwhile, metrics are sent to an OpenTelemetry collector.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import psycopg

from aggregator.core.metrics import COUNTERS, DURATION
from dev.airflow_api import NotYetError, wait
from dev.alerts_receiver import AlertsReceiver
from dev.demo import TRIGGERED
from dev.otlp_receiver import OtlpReceiver
from dev.sample.load import load_new_candles
from dev.sample.ohlcv import POISONED
from dev.stack import Ports, Stack, StackError, dag_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

BACKFILLED, BACKFILLED_DAYS = "analytics_daily_reports", 30

FAILING = "analytics_warmup_reset"
"""DAG whose run can be made to fail and to succeed within seconds."""

UNAFFECTED = "click_rollups"
"""DAG that does not depend on the failing one."""

OUTAGE = timedelta(minutes=1)
"""Duration of an outage of the receiver."""

CANDLES_DAG = "ohlcv_aggregation"
INTERVAL = timedelta(minutes=5)
MIN_MISSED_RUNS = 2
"""Number of runs that the stopped scheduler misses."""

STALE_WITHIN = timedelta(minutes=22)
"""A 15m bar is stale five minutes after its end, and the next window may just have started."""

WRONG_BARS = """
with expected as (
    select
        symbol,
        date_bin('15 minutes', ts, timestamptz '2000-01-01 00:00+00') as ts,
        (array_agg(open order by ts))[1] as open,
        max(high) as high,
        min(low) as low,
        (array_agg(close order by ts desc))[1] as close,
        sum(volume) as volume,
        count(*) as candles
    from ohlcv.candles
    where symbol <> %(but)s and ts >= %(since)s and ts < %(until)s
    group by symbol, date_bin('15 minutes', ts, timestamptz '2000-01-01 00:00+00')
),

bars as (
    select symbol, ts, open, high, low, close, volume, candles
    from ohlcv.bars
    where symbol <> %(but)s and timeframe = '15m' and ts >= %(since)s and ts < %(until)s
)

select symbol, ts
from (
    (table expected except table bars)
    union all
    (table bars except table expected)
) as different
"""
"""15m windows whose bar differs from their candles, is missing, or has no candles."""


class DrillError(StackError):
    """A drill found a wrong result; the text describes it."""


@dataclass(frozen=True)
class Scene:
    """Resources of a drill.

    Attributes:
        stack: The stack.
        receiver: Receives the alerts.
        collector: Receives the metrics.
        products: Autocommit connection to the products' database.
        say: Prints a step. A text that starts with a space is a result.
    """

    stack: Stack
    receiver: AlertsReceiver
    collector: OtlpReceiver
    products: psycopg.Connection
    say: Callable[[str], object]

    def newest(self, table: str) -> int:
        """Return the greatest id of a table."""
        ((newest,),) = self.products.execute(f"select coalesce(max(id), 0) from {table}").fetchall()  # noqa: S608
        return int(newest)

    def clear(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Clear a run, and return it when it has finished."""
        self.stack.airflow.clear(dag_id, run_id)
        return self.stack.airflow.wait_for_run(dag_id, run_id)


def run(home: Path, say: Callable[[str], object]) -> None:
    """Run all drills in order.

    Args:
        home: Folder of the stack; it is removed.
        say: Prints each step before it starts.

    Raises:
        DrillError: A drill found a wrong result.
        StackError: The stack does not work.
        AirflowApiError: Airflow's API does not work.
    """
    # The receivers' server logs every request.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with ExitStack() as resources:
        receiver = resources.enter_context(closing(AlertsReceiver()))
        collector = resources.enter_context(closing(OtlpReceiver()))
        stack = Stack(home, configuration={**receiver.environment(), **collector.environment()})
        stack.remove()  # files of a killed process
        resources.callback(stack.remove)
        stack.start(Ports.free(), durable=False, say=say)
        products = resources.enter_context(psycopg.connect(stack.products_url, autocommit=True))
        resources.enter_context(_feed(stack))
        scene = Scene(stack, receiver, collector, products, say)
        say("Waiting for the runs of last night")
        for dag_id in TRIGGERED:
            stack.airflow.start(dag_id)
        for dag_id in sorted(dag_ids()):
            stack.airflow.wait_for_run(dag_id, seconds=300)
        for drill in (
            every_metric_arrives_over_opentelemetry,
            backfill_of_a_month_sends_no_alert,
            outage_of_the_receiver_loses_no_alert,
            stopped_scheduler_is_reported_and_catches_up,
        ):
            started = time.monotonic()
            drill(scene)
            say(f"  {drill.__name__.replace('_', ' ')}: proved in {time.monotonic() - started:.0f} s")


def every_metric_arrives_over_opentelemetry(scene: Scene) -> None:
    """All documented metrics arrive, with the DAG as a tag."""
    scene.say("Checking the metrics that the OpenTelemetry collector has received")
    documented = {f"airflow.{name}" for name, _ in COUNTERS.values()} | {f"airflow.{DURATION}"}

    def complete() -> None:
        arrived = scene.collector.arrived
        missing = documented - arrived.keys()
        silent = dag_ids() - arrived.get(f"airflow.{DURATION}", set())
        if missing or silent:
            msg = f"Metrics that did not arrive: {sorted(missing)}. DAGs without metrics: {sorted(silent)}."
            raise NotYetError(msg)

    wait(complete, seconds=120)
    scene.say(f"  {len(documented)} metrics of {len(dag_ids())} DAGs have arrived")


def backfill_of_a_month_sends_no_alert(scene: Scene) -> None:
    """A backfill of thirty days creates no alert and sends no message."""
    stack = scene.stack
    newest_alert, received = scene.newest("ops.alerts"), scene.receiver.messages(BACKFILLED)
    today = datetime.now(UTC).date()
    first, last = today - timedelta(days=1 + BACKFILLED_DAYS), today - timedelta(days=2)
    scene.say(f"Backfilling {BACKFILLED} from {first} to {last}")
    dates = {"from_date": f"{first}T00:00:00Z", "to_date": f"{last}T00:00:00Z"}
    stack.airflow.post("backfills", dag_id=BACKFILLED, max_active_runs=3, **dates)
    runs = stack.airflow.wait_for_backfill(BACKFILLED, BACKFILLED_DAYS, seconds=900)
    states = [run["state"] for run in runs]
    _prove(states == ["success"] * BACKFILLED_DAYS, f"The runs ended as {states}.")
    query = "select text from ops.alerts where id > %s and subject = %s"
    alerts = scene.products.execute(query, [newest_alert, BACKFILLED]).fetchall()
    _prove(not alerts and scene.receiver.messages(BACKFILLED) == received, f"The backfill raised alerts: {alerts}")
    scene.say(f"  {len(states)} runs succeeded; no row in ops.alerts, no message")


def outage_of_the_receiver_loses_no_alert(scene: Scene) -> None:
    """A receiver that refuses, fails or hangs for a minute gets the alert once, afterwards. No task waits for it."""
    runs = {dag_id: scene.stack.airflow.runs(dag_id)[0]["dag_run_id"] for dag_id in (FAILING, UNAFFECTED)}
    for outage in (scene.receiver.refusing, scene.receiver.failing, scene.receiver.hanging):
        _one_outage(scene, runs, outage)


def _one_outage(scene: Scene, runs: dict[str, str], outage: Callable[[], AbstractContextManager[None]]) -> None:
    kind = outage.__name__
    newest, received = scene.newest("ops.alert_messages"), len(scene.receiver.messages(FAILING))
    scene.say(f"A run fails while the receiver is {kind} for {OUTAGE.seconds} s")
    with outage():
        end = time.monotonic() + OUTAGE.total_seconds()
        tasks = _fail(scene, runs)
        created_at, error = wait(lambda: _attempted(scene, newest), seconds=60)
        time.sleep(max(0, end - time.monotonic()))
        _prove(len(scene.receiver.messages(FAILING)) == received, f"A receiver that was {kind} accepted a message.")
    ended_at = datetime.fromisoformat(tasks[FAILING]["end_date"])
    _prove(ended_at < created_at, f"The task ended at {ended_at}, after its alert was stored at {created_at}.")
    scene.receiver.wait_for_messages(FAILING, received + 1, seconds=180)
    _fix(scene, runs)
    texts = scene.receiver.messages(FAILING)[received:]
    starts = [text.split(":")[0] for text in texts]
    _prove(starts == ["CRITICAL FAILED", "RECOVERED"], f"The receiver got {texts}.")
    query = "select count(*), count(sent_at) from ops.alert_messages where id > %s and text like %s"
    ((stored, sent),) = scene.products.execute(query, [newest, f"%{FAILING}%"]).fetchall()
    _prove((stored, sent) == (2, 2), f"{sent} of {stored} messages are marked as sent.")
    took = ", ".join(f"{dag_id} {task['duration']:.1f} s" for dag_id, task in tasks.items())
    scene.say(
        f"  stored first (error meanwhile: {error}), then sent once; the recovery was sent once; tasks took: {took}"
    )


def _fail(scene: Scene, runs: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Clear both runs, one of which fails, and return the task of each."""
    scene.products.execute("alter table delivery.sending_domains rename to gone")
    for dag_id, run_id in runs.items():
        scene.stack.airflow.clear(dag_id, run_id)
    states = {dag_id: scene.stack.airflow.wait_for_run(dag_id, run_id)["state"] for dag_id, run_id in runs.items()}
    _prove(states == {FAILING: "failed", UNAFFECTED: "success"}, f"The runs ended as {states}.")
    return {
        dag_id: scene.stack.airflow.get(f"dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"][0]
        for dag_id, run_id in runs.items()
    }


def _fix(scene: Scene, runs: dict[str, str]) -> None:
    """Clear the failed run so that it succeeds, and wait for the message of its recovery."""
    received = len(scene.receiver.messages(f"RECOVERED: {FAILING}"))
    scene.products.execute("alter table delivery.gone rename to sending_domains")
    state = scene.clear(FAILING, runs[FAILING])["state"]
    _prove(state == "success", f"The cleared run ended as {state}.")
    scene.receiver.wait_for_messages(f"RECOVERED: {FAILING}", received + 1)


def _attempted(scene: Scene, newest: int) -> tuple[datetime, str]:
    """Return when the unsent message was stored, and why it could not be sent."""
    query = """
        select created_at, error from ops.alert_messages
        where id > %s and text like %s and sent_at is null and attempts > 0
    """
    rows = scene.products.execute(query, [newest, f"CRITICAL FAILED: {FAILING}%"]).fetchall()
    if len(rows) != 1:
        msg = f"{len(rows)} messages are unsent after an attempt"
        raise NotYetError(msg)
    return rows[0][0], rows[0][1]


def stopped_scheduler_is_reported_and_catches_up(scene: Scene) -> None:
    """Without a scheduler, stale bars raise an alert. After a restart, no window is missing and the alert recovers."""
    stack, receiver = scene.stack, scene.receiver
    # A run that is interrupted would be retried, which this drill does not cover.
    stack.airflow.wait_for_run(CANDLES_DAG)
    received = len(receiver.messages())
    _prove(stack.freshness()[0] == 200, f"Before the drill, the data was {stack.freshness()[1]}.")  # noqa: PLR2004
    stopped = datetime.now(UTC)
    scene.say("Stopping the scheduler, and waiting until bars are stale")
    stack.supervisor.stop_program("scheduler")

    (alarm,) = receiver.wait_for_messages("STALE: ohlcv.bars", 1, seconds=STALE_WITHIN.total_seconds())
    alerted_at = datetime.now(UTC)
    status, states = stack.freshness()
    _prove((status, states["ohlcv.bars"]) == (503, "stale"), f"/api/freshness returned {status}: {states}")
    scene.say(f"  after {(alerted_at - stopped).total_seconds():.0f} s: {alarm}")
    scene.say(f"  /api/freshness returns {status}: {states}")

    time.sleep(max(0.0, (stopped + MIN_MISSED_RUNS * INTERVAL + INTERVAL / 5 - alerted_at).total_seconds()))
    started = datetime.now(UTC)
    scene.say(f"Starting the scheduler after {(started - stopped).total_seconds():.0f} s")
    stack.supervisor.start_program("scheduler")
    (recovery,) = receiver.wait_for_messages("RECOVERED: ohlcv.bars", 1, seconds=300)
    scene.say(f"  after {(datetime.now(UTC) - started).total_seconds():.0f} s: {recovery}")

    missed = wait(lambda: _missed_runs(stack, stopped, started), seconds=300, every=2)
    windows = wait(lambda: _compared_windows(scene, stopped, started), seconds=300, every=5)
    status, states = stack.freshness()
    _prove(status == 200, f"/api/freshness returned {status}: {states}")  # noqa: PLR2004
    scene.say(f"  {missed} missed runs succeeded; {windows} bars are equal to those of the candles")

    about = ("ohlcv.bars", CANDLES_DAG)
    texts = [text for text in receiver.messages()[received:] if any(name in text for name in about)]
    starts = [text.split(":")[0] for text in texts]
    _prove(starts == ["CRITICAL STALE", "RECOVERED"], f"The receiver got {texts}.")


def _missed_runs(stack: Stack, stopped: datetime, started: datetime) -> int:
    """Return the number of runs that were due meanwhile. All must have succeeded, without a gap."""
    runs = [run for run in stack.airflow.runs(CANDLES_DAG) if run["run_type"] == "scheduled"]
    due = sorted(datetime.fromisoformat(run["run_after"]) for run in runs)
    gaps = [later for earlier, later in pairwise(due) if later - earlier != INTERVAL]
    _prove(not gaps, f"Runs are missing before {gaps}.")
    missed = [run for run in runs if stopped < datetime.fromisoformat(run["run_after"]) <= started]
    states = [run["state"] for run in missed]
    if due[-1] + INTERVAL <= started or len(missed) < MIN_MISSED_RUNS or set(states) != {"success"}:
        msg = f"The states of the missed runs up to {due[-1]} are {states}."
        raise NotYetError(msg)
    return len(missed)


def _compared_windows(scene: Scene, stopped: datetime, started: datetime) -> int:
    """Return the number of 15m windows of the outage and the hour before it. All must have correct bars."""
    quarter = timedelta(minutes=15)
    ends = started - (started - datetime.min.replace(tzinfo=UTC)) % quarter
    since = stopped - (stopped - datetime.min.replace(tzinfo=UTC)) % quarter - 4 * quarter
    different = scene.products.execute(WRONG_BARS, {"but": POISONED, "since": since, "until": ends}).fetchall()
    if different:
        msg = f"Bars differ from their candles: {different}"
        raise NotYetError(msg)
    query = "select count(*) from ohlcv.bars where timeframe = '15m' and symbol <> %s and ts >= %s and ts < %s"
    ((windows,),) = scene.products.execute(query, [POISONED, since, ends]).fetchall()
    _prove(windows > 0, "There are no windows to compare.")
    return int(windows)


@contextmanager
def _feed(stack: Stack) -> Iterator[None]:
    """Insert new candles continuously in the ``with`` block, as a market feed does."""
    stopped = threading.Event()

    def feed() -> None:
        # The sample data ends up to five minutes ago.
        sent = datetime.now(UTC) - timedelta(minutes=10)
        with psycopg.connect(stack.products_url, autocommit=True) as products:
            while not stopped.wait(5):
                now = datetime.now(UTC)
                with products.transaction():
                    load_new_candles(products, sent, now)
                sent = now

    thread = threading.Thread(target=feed, name="feed")
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def _prove(condition: bool, problem: str) -> None:  # noqa: FBT001
    if not condition:
        raise DrillError(problem)
