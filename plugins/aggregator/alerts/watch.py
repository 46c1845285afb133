"""Sends alerts that no task can send: stale data while the scheduler is down, recoveries, and alerts that were lost.

    python -m aggregator.alerts.watch [--once]

It is one process beside Airflow's, and needs no scheduler. Two of them do no harm.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from aggregator.alerts import freshness, runs
from aggregator.alerts.dead_letters import ALERT_DEPTH
from aggregator.alerts.freshness import State
from aggregator.alerts.messages import Outcome, failed, late, minute, recovered, redone_by_next, stale
from aggregator.alerts.notifier import deliver
from aggregator.alerts.store import Alert, Kind, OpenAlert, execute, open_alerts, raise_alert, resolve
from aggregator.core.catalog import CATALOG
from aggregator.core.errors import AggregatorError, UnknownConnectionError
from aggregator.core.failures import has_wrong_params

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from airflow.models.dagrun import DagRun

log = logging.getLogger(__name__)

EVERY = 10.0
"""Seconds between two looks."""

DATA_EVERY = 3
"""Every how many looks the products' tables are looked at: that costs more than a look at alerts and runs."""

LOOK_BACK = timedelta(days=7)
"""How long ago a run may have failed, or become late, for an alert that is missing to be raised."""

GRACE = timedelta(minutes=1)
"""Time that Airflow has to call the callback of a run."""

NAMED_AT_MOST = 5
"""Disabled tasks that a text names."""

_MARKET = "market_db"


def check(*, with_data: bool = True) -> None:
    """Raise and settle what has changed since the last look, and send what is to be sent.

    What cannot be looked at, as its database does not answer, is logged and left as it is.

    Args:
        with_data: Look at the products' tables, too.
    """
    data = (watch_freshness, watch_disabled_tasks) if with_data else ()
    with _logged_errors():
        # One of them that is settled or gets members meanwhile is not settled by this list.
        alerts = open_alerts()
        for step in (raise_missing, resolve_runs, watch_dead_letters, *data):
            with _logged_errors():
                step(alerts)
        deliver()


@contextmanager
def _logged_errors() -> Iterator[None]:
    try:
        yield
    except AggregatorError as error:
        log.error("This check was not finished: %s", error)  # noqa: TRY400


def raise_missing(alerts: Iterable[OpenAlert]) -> None:  # noqa: ARG001 - those that are settled count, too
    """Raise the alerts about failed and late runs whose callback could not: the database of alerts was down, say.

    Left out are runs that ended before this database had alerts, those that somebody marked as failed, those whose work
    a later run has done, and manual runs with wrong params. Alerts of one DAG are one message, as everywhere.

    Args:
        alerts: Those that are open.

    Raises:
        AggregatorError: The runs could not be read, or the alerts not be read or written.
    """
    until = datetime.now(UTC) - GRACE
    ((begin,),) = execute("alerts/queries/begin.sql", {})
    since = max(until - LOOK_BACK, begin)
    dag_ids = list(CATALOG)
    reported: dict[tuple[str, str, str], datetime | None] = {
        (kind, dag_id, run_id): settled
        for kind, dag_id, run_id, settled in execute("alerts/queries/reported_runs.sql", {"since": since})
    }
    redone = Redone()
    missing = [
        (run, ended)
        for run, ended in runs.failed_between(dag_ids, since, until)
        if not _is_reported(reported, run, ended) and run not in redone
    ]
    by_hand = {
        dag_id: runs.marked([run for run, _ in missing if run.dag_id == dag_id], runs.FAILED) for dag_id in dag_ids
    }
    for run, ended in missing:
        if run.run_id in by_hand[run.dag_id]:
            continue
        failure = runs.failure_of(run)
        if not has_wrong_params(failure, run.run_type):
            text = failed(run.dag_id, run.run_id, run, failure, ended)
            raise_alert(Alert(Kind.FAILED, run.dag_id, ended, text, (run.run_id,)))
    for run, deadline in runs.late_between(dag_ids, since, until):
        if not reported.keys() & {(kind.value, run.dag_id, run.run_id) for kind in (Kind.LATE, Kind.FAILED)}:
            text = late(run.dag_id, run.run_id, run.run_after, run.state, deadline)
            raise_alert(Alert(Kind.LATE, run.dag_id, deadline, text, (run.run_id,)))


def _is_reported(reported: Mapping[tuple[str, str, str], datetime | None], run: DagRun, ended: datetime) -> bool:
    key = (Kind.FAILED.value, run.dag_id, run.run_id)
    settled = reported.get(key)
    return key in reported and (settled is None or settled >= ended)


class Redone:
    """The failed runs whose work a later run has done; reads the newest success of each DAG once."""

    def __init__(self) -> None:
        self._newest: dict[str, DagRun | None] = {}

    def __contains__(self, run: DagRun) -> bool:
        """Whether a later run has done the work of a failed one.

        Raises:
            AggregatorError: Airflow's database did not answer.
        """
        if run.state != runs.FAILED or not redone_by_next(run.dag_id, run):
            return False
        if run.dag_id not in self._newest:
            self._newest[run.dag_id] = runs.newest_success(run.dag_id)
        newest = self._newest[run.dag_id]
        # A run that was at work beside the failed one found its work claimed.
        return bool(
            newest
            and newest.run_after > run.run_after
            and newest.start_date
            and run.end_date
            and newest.start_date >= run.end_date
        )


def resolve_runs(alerts: Iterable[OpenAlert]) -> None:
    """Settle alerts about runs that have succeeded, were deleted, or whose work a later run has done.

    Args:
        alerts: Those that are open.

    Raises:
        AggregatorError: The runs could not be read, or the alerts not be written.
    """
    redone = Redone()
    for alert in _of(alerts, Kind.LATE, Kind.FAILED):
        members = runs.by_id(alert.subject, alert.members)
        outcomes = {run_id: _outcome(alert.kind, members.get(run_id), redone) for run_id in alert.members}
        ended = {run_id: outcome for run_id, outcome in outcomes.items() if outcome is not None}
        if len(ended) < len(outcomes):
            continue
        succeeded = [run for run in members.values() if ended[run.run_id] is Outcome.SUCCEEDED]
        by_hand = runs.marked(succeeded, runs.SUCCESS)
        resolve(alert, recovered(alert, {**ended, **dict.fromkeys(by_hand, Outcome.MARKED)}))


def _outcome(kind: Kind, run: DagRun | None, redone: Redone) -> Outcome | None:
    """How a run of an alert has ended; None while the alert about it has to stay open."""
    if run is None:
        return Outcome.DELETED
    if run.state == runs.SUCCESS:
        return Outcome.SUCCEEDED
    if run.state == runs.FAILED and kind is Kind.LATE:
        return Outcome.FAILED
    return Outcome.REDONE if run in redone else None


def watch_freshness(alerts: Iterable[OpenAlert]) -> None:
    """Raise an alert for each table that is stale, settle those of tables that are fresh again.

    One that is not to be fresh now, as its DAGs are paused, is settled without a word. Of one that has lost its data or
    its connection the alert stays open.

    Args:
        alerts: Those that are open.

    Raises:
        AggregatorError: The alerts could not be written.
    """
    found = freshness.check()
    for one in found:
        if one.state is State.STALE and one.newest and one.waiting_since:
            target = one.target
            text = stale(one, datetime.now(UTC))
            raise_alert(Alert(Kind.STALE, target.table, one.waiting_since + target.max_age, text))
    states = {one.target.table: one.state for one in found}
    for alert in _of(alerts, Kind.STALE):
        state = states.get(alert.subject)
        if state is State.FRESH:
            resolve(alert, f"RECOVERED: {alert.subject} is fresh again. It was stale since {minute(alert.since)}.")
        elif state is State.PAUSED:
            resolve(alert, None)


def watch_dead_letters(alerts: Iterable[OpenAlert]) -> None:
    """Raise an alert while there are too many dead letters.

    Args:
        alerts: Those that are open.

    Raises:
        AggregatorError: The letters could not be read, or the alerts not be written.
    """
    ((depth, since),) = execute("alerts/queries/dead_letter_depth.sql", {})
    if depth >= ALERT_DEPTH:
        text = f"DEAD LETTERS: {depth} runs failed and wait for a replay: python -m aggregator.alerts.dead_letters list"
        raise_alert(Alert(Kind.DEAD_LETTERS, "ops.dead_letters", since, text))
        return
    for alert in _of(alerts, Kind.DEAD_LETTERS):
        resolve(alert, f"RECOVERED: fewer than {ALERT_DEPTH} dead letters are open.")


def watch_disabled_tasks(alerts: Iterable[OpenAlert]) -> None:
    """Raise an alert while OHLCV tasks are disabled.

    Args:
        alerts: Those that are open.

    Raises:
        AggregatorError: The tasks could not be read, or the alerts not be written.
    """
    try:
        ((there,),) = execute("alerts/queries/has_ohlcv_tasks.sql", {}, _MARKET)
        tasks = execute("alerts/queries/disabled_tasks.sql", {}, _MARKET) if there else []
    except UnknownConnectionError:
        return
    if tasks:
        names = tuple(name for name, _ in tasks)
        more = f" and {len(names) - NAMED_AT_MOST} more" if len(names) > NAMED_AT_MOST else ""
        text = (
            f"DISABLED: {', '.join(names[:NAMED_AT_MOST])}{more}: no bars are built after repeated permanent errors. "
            "ops.ops_issues has the errors. Fix the cause, then run: python -m aggregator.ohlcv reset"
        )
        since = tasks[0][1] or datetime.now(UTC)
        raise_alert(Alert(Kind.TASK_DISABLED, "ohlcv.tasks", since, text, names))
        return
    for alert in _of(alerts, Kind.TASK_DISABLED):
        resolve(alert, "RECOVERED: no OHLCV task is disabled any more.")


def _of(alerts: Iterable[OpenAlert], *kinds: Kind) -> Iterator[OpenAlert]:
    return (alert for alert in alerts if alert.kind in kinds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Watch until the process is ended.

    Returns:
        0, the exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m aggregator.alerts.watch", description="Watch runs and data.")
    parser.add_argument("--once", action="store_true", help="look once, for a cron job")
    parser.add_argument("--heartbeat", type=Path, metavar="FILE", help="touched after each look, for a health check")
    options = parser.parse_args(arguments)
    # As Airflow's own components do, to find connections that were made in the UI.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for number in count():
        check(with_data=number % DATA_EVERY == 0)
        if options.heartbeat:
            options.heartbeat.touch()
        if options.once:
            break
        time.sleep(EVERY)
    return 0


if __name__ == "__main__":
    sys.exit(main())
