"""What `make drills` proves in real time, on one throw-away stack: whoever is on call is told once, and truthfully.

A month is backfilled; the receiver of alerts is down for a minute, in three ways; the scheduler is stopped until data
is stale, and started again. Meanwhile metrics go to an OpenTelemetry collector.
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
"""A DAG whose run can be made to fail, and to succeed again, in seconds."""

BESIDE = "click_rollups"
"""A DAG that has nothing to do with the failing one."""

OUT_OF_ORDER = timedelta(minutes=1)
"""How long the receiver is."""

CANDLES_DAG = "ohlcv_aggregation"
INTERVAL = timedelta(minutes=5)
MISSED_AT_LEAST = 2
"""Intervals that the scheduler is down for."""

STALE_WITHIN = timedelta(minutes=22)
"""A bar of 15 minutes is stale five minutes after its end, and the next one may just have begun."""

NOT_AS_CANDLES = """
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
"""Windows of 15 minutes whose bars are not what their candles give, or not there, or there without candles."""


class DrillError(StackError):
    """What was to be proved is not so; the text says what was seen."""


@dataclass(frozen=True)
class Scene:
    """What a drill works with.

    Attributes:
        stack: The stack.
        receiver: Who is told of alerts.
        collector: Where metrics go.
        products: An autocommit connection to the products' database.
        say: Is told each step; one that begins with a space is what was seen.
    """

    stack: Stack
    receiver: AlertsReceiver
    collector: OtlpReceiver
    products: psycopg.Connection
    say: Callable[[str], object]

    def newest(self, table: str) -> int:
        """The greatest id in a table of ours."""
        ((newest,),) = self.products.execute(f"select coalesce(max(id), 0) from {table}").fetchall()  # noqa: S608
        return int(newest)

    def clear(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Clear a run, and return it when it is over again."""
        self.stack.airflow.clear(dag_id, run_id)
        return self.stack.airflow.wait_for_run(dag_id, run_id)


def run(home: Path, say: Callable[[str], object]) -> None:
    """Hold every drill, one after the other.

    Args:
        home: Folder of the stack, which is removed.
        say: Is told each step before it begins.

    Raises:
        DrillError: What was to be proved is not so.
        StackError: The stack does not work.
        AirflowApiError: Likewise.
    """
    # The receivers' server narrates every request.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with ExitStack() as resources:
        receiver = resources.enter_context(closing(AlertsReceiver()))
        collector = resources.enter_context(closing(OtlpReceiver()))
        stack = Stack(home, configuration={**receiver.environment(), **collector.environment()})
        stack.remove()  # what one that was killed has left
        resources.callback(stack.remove)
        stack.start(Ports.free(), durable=False, say=say)
        products = resources.enter_context(psycopg.connect(stack.products_url, autocommit=True))
        resources.enter_context(_feed(stack))
        scene = Scene(stack, receiver, collector, products, say)
        say("Waiting for last night's runs")
        for dag_id in TRIGGERED:
            stack.airflow.start(dag_id)
        for dag_id in sorted(dag_ids()):
            stack.airflow.wait_for_run(dag_id, seconds=300)
        for drill in (
            every_metric_arrives_over_opentelemetry,
            backfill_of_a_month_alerts_nobody,
            receiver_out_of_order_loses_nothing,
            stopped_scheduler_is_told_and_caught_up,
        ):
            began = time.monotonic()
            drill(scene)
            say(f"  {drill.__name__.replace('_', ' ')}: proved in {time.monotonic() - began:.0f} s")


def every_metric_arrives_over_opentelemetry(scene: Scene) -> None:
    """All documented metrics arrive, and say of which DAG they are."""
    scene.say("Looking at what the OpenTelemetry collector has got")
    documented = {f"airflow.{name}" for name, _ in COUNTERS.values()} | {f"airflow.{DURATION}"}

    def complete() -> None:
        arrived = scene.collector.arrived
        missing = documented - arrived.keys()
        silent = dag_ids() - arrived.get(f"airflow.{DURATION}", set())
        if missing or silent:
            msg = f"these metrics did not arrive: {sorted(missing)}; nor any of {sorted(silent)}"
            raise NotYetError(msg)

    wait(complete, seconds=120)
    scene.say(f"  {len(documented)} metrics, of {len(dag_ids())} DAGs")


def backfill_of_a_month_alerts_nobody(scene: Scene) -> None:
    """A backfill of thirty days makes no row, and no message."""
    stack = scene.stack
    newest_alert, told = scene.newest("ops.alerts"), scene.receiver.told(BACKFILLED)
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
    _prove(not alerts and scene.receiver.told(BACKFILLED) == told, f"Somebody was told: {alerts}")
    scene.say(f"  {len(states)} runs have succeeded; no row in ops.alerts, no message")


def receiver_out_of_order_loses_nothing(scene: Scene) -> None:
    """A receiver that refuses, fails or hangs for a minute is told once, afterwards; no task waits for it."""
    runs = {dag_id: scene.stack.airflow.runs(dag_id)[0]["dag_run_id"] for dag_id in (FAILING, BESIDE)}
    for outage in (scene.receiver.refusing, scene.receiver.failing, scene.receiver.hanging):
        _one_outage(scene, runs, outage)


def _one_outage(scene: Scene, runs: dict[str, str], outage: Callable[[], AbstractContextManager[None]]) -> None:
    what = outage.__name__
    newest, told = scene.newest("ops.alert_messages"), len(scene.receiver.told(FAILING))
    scene.say(f"A run fails while the receiver is {what}, for {OUT_OF_ORDER.seconds} s")
    with outage():
        end = time.monotonic() + OUT_OF_ORDER.total_seconds()
        tasks = _fail(scene, runs)
        created_at, error = wait(lambda: _attempted(scene, newest), seconds=60)
        time.sleep(max(0, end - time.monotonic()))
        _prove(len(scene.receiver.told(FAILING)) == told, f"A receiver that was {what} has accepted something.")
    ended_at = datetime.fromisoformat(tasks[FAILING]["end_date"])
    _prove(ended_at < created_at, f"The task ended at {ended_at}, its alert was there at {created_at} already.")
    scene.receiver.wait_until_told(FAILING, told + 1, seconds=180)
    _mend(scene, runs)
    texts = scene.receiver.told(FAILING)[told:]
    starts = [text.split(":")[0] for text in texts]
    _prove(starts == ["FAILED", "RECOVERED"], f"It was told {texts}")
    query = "select count(*), count(sent_at) from ops.alert_messages where id > %s and text like %s"
    ((stored, sent),) = scene.products.execute(query, [newest, f"%{FAILING}%"]).fetchall()
    _prove((stored, sent) == (2, 2), f"{sent} of {stored} messages are marked as sent.")
    took = ", ".join(f"{dag_id} {task['duration']:.1f} s" for dag_id, task in tasks.items())
    scene.say(f"  the row was first ({error} meanwhile), told once, and once of the recovery; tasks took: {took}")


def _fail(scene: Scene, runs: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Clear both runs, of which one fails; the task of each."""
    scene.products.execute("alter table delivery.sending_domains rename to gone")
    for dag_id, run_id in runs.items():
        scene.stack.airflow.clear(dag_id, run_id)
    states = {dag_id: scene.stack.airflow.wait_for_run(dag_id, run_id)["state"] for dag_id, run_id in runs.items()}
    _prove(states == {FAILING: "failed", BESIDE: "success"}, f"The runs ended as {states}.")
    return {
        dag_id: scene.stack.airflow.get(f"dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"][0]
        for dag_id, run_id in runs.items()
    }


def _mend(scene: Scene, runs: dict[str, str]) -> None:
    """Let the run that failed succeed, and wait until that is told."""
    told = len(scene.receiver.told(f"RECOVERED: {FAILING}"))
    scene.products.execute("alter table delivery.gone rename to sending_domains")
    state = scene.clear(FAILING, runs[FAILING])["state"]
    _prove(state == "success", f"The mended run ended as {state}.")
    scene.receiver.wait_until_told(f"RECOVERED: {FAILING}", told + 1)


def _attempted(scene: Scene, newest: int) -> tuple[datetime, str]:
    """When the message was written that could not be sent yet, and why not."""
    query = """
        select created_at, error from ops.alert_messages
        where id > %s and text like %s and sent_at is null and attempts > 0
    """
    rows = scene.products.execute(query, [newest, f"FAILED: {FAILING}%"]).fetchall()
    if len(rows) != 1:
        msg = f"{len(rows)} messages wait after an attempt"
        raise NotYetError(msg)
    return rows[0][0], rows[0][1]


def stopped_scheduler_is_told_and_caught_up(scene: Scene) -> None:
    """Without a scheduler bars are stale, which is told; with it again no window is missing, which is told, too."""
    stack, receiver = scene.stack, scene.receiver
    # A run that was told to stop would be tried again, and that is another story.
    stack.airflow.wait_for_run(CANDLES_DAG)
    before = len(receiver.told())
    _prove(stack.freshness()[0] == 200, f"Before it began, the data was {stack.freshness()[1]}.")  # noqa: PLR2004
    stopped = datetime.now(UTC)
    scene.say("The scheduler is stopped; waiting until bars are stale")
    stack.supervisor.stop_program("scheduler")

    (alarm,) = receiver.wait_until_told("STALE: ohlcv.bars", 1, seconds=STALE_WITHIN.total_seconds())
    told_at = datetime.now(UTC)
    status, states = stack.freshness()
    _prove((status, states["ohlcv.bars"]) == (503, "stale"), f"/api/freshness answered {status}: {states}")
    scene.say(f"  after {(told_at - stopped).total_seconds():.0f} s: {alarm}")
    scene.say(f"  /api/freshness answers {status}: {states}")

    time.sleep(max(0.0, (stopped + MISSED_AT_LEAST * INTERVAL + INTERVAL / 5 - told_at).total_seconds()))
    started = datetime.now(UTC)
    scene.say(f"The scheduler is started, after {(started - stopped).total_seconds():.0f} s")
    stack.supervisor.start_program("scheduler")
    (recovery,) = receiver.wait_until_told("RECOVERED: ohlcv.bars", 1, seconds=300)
    scene.say(f"  after {(datetime.now(UTC) - started).total_seconds():.0f} s: {recovery}")

    missed = wait(lambda: _missed_runs(stack, stopped, started), seconds=300, every=2)
    windows = wait(lambda: _compared_windows(scene, stopped, started), seconds=300, every=5)
    status, states = stack.freshness()
    _prove(status == 200, f"/api/freshness answered {status}: {states}")  # noqa: PLR2004
    scene.say(f"  {missed} runs were missed, and all were made; {windows} bars are what the candles give")

    about = ("ohlcv.bars", CANDLES_DAG)
    texts = [text for text in receiver.told()[before:] if any(name in text for name in about)]
    starts = [text.split(":")[0] for text in texts]
    _prove(starts == ["STALE", "RECOVERED"], f"It was told {texts}")


def _missed_runs(stack: Stack, stopped: datetime, started: datetime) -> int:
    """How many runs were due meanwhile; all have to have succeeded, none may be left out."""
    runs = [run for run in stack.airflow.runs(CANDLES_DAG) if run["run_type"] == "scheduled"]
    due = sorted(datetime.fromisoformat(run["run_after"]) for run in runs)
    gaps = [later for earlier, later in pairwise(due) if later - earlier != INTERVAL]
    _prove(not gaps, f"Runs are missing before {gaps}.")
    missed = [run for run in runs if stopped < datetime.fromisoformat(run["run_after"]) <= started]
    states = [run["state"] for run in missed]
    if due[-1] + INTERVAL <= started or len(missed) < MISSED_AT_LEAST or set(states) != {"success"}:
        msg = f"missed runs up to {due[-1]} are {states}"
        raise NotYetError(msg)
    return len(missed)


def _compared_windows(scene: Scene, stopped: datetime, started: datetime) -> int:
    """How many windows of 15 minutes, from the hour before on, ended before the scheduler was back; all are right."""
    quarter = timedelta(minutes=15)
    ends = started - (started - datetime.min.replace(tzinfo=UTC)) % quarter
    since = stopped - (stopped - datetime.min.replace(tzinfo=UTC)) % quarter - 4 * quarter
    different = scene.products.execute(NOT_AS_CANDLES, {"but": POISONED, "since": since, "until": ends}).fetchall()
    if different:
        msg = f"bars that are not what the candles give: {different}"
        raise NotYetError(msg)
    query = "select count(*) from ohlcv.bars where timeframe = '15m' and symbol <> %s and ts >= %s and ts < %s"
    ((windows,),) = scene.products.execute(query, [POISONED, since, ends]).fetchall()
    _prove(windows > 0, "There was no window to compare.")
    return int(windows)


@contextmanager
def _feed(stack: Stack) -> Iterator[None]:
    """Candles come in as they do from a market, in the ``with`` block."""
    over = threading.Event()

    def feed() -> None:
        # What was loaded ends up to five minutes ago.
        sent = datetime.now(UTC) - timedelta(minutes=10)
        with psycopg.connect(stack.products_url, autocommit=True) as products:
            while not over.wait(5):
                now = datetime.now(UTC)
                with products.transaction():
                    load_new_candles(products, sent, now)
                sent = now

    thread = threading.Thread(target=feed, name="feed")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _prove(is_so: bool, seen: str) -> None:  # noqa: FBT001
    if not is_so:
        raise DrillError(seen)
