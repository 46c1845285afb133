"""Sends alerts that no task can send: stale data while the scheduler is down, recoveries, and undelivered messages.

    python -m aggregator.alerts.watch [--once]

It is one process beside Airflow's, and needs no scheduler. Two of them at the same time are safe.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from aggregator.alerts import freshness, messages, runs
from aggregator.alerts.dead_letters import ALERT_DEPTH
from aggregator.alerts.freshness import State
from aggregator.alerts.messages import Outcome
from aggregator.alerts.notifier import deliver
from aggregator.alerts.store import Alert, Kind, OpenAlert, execute, open_alerts, raise_alert, resolve
from aggregator.core.catalog import CATALOG
from aggregator.core.errors import AggregatorError, UnknownConnectionError
from aggregator.core.failures import has_wrong_params
from aggregator.kpi import registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from airflow.models.dagrun import DagRun

log = logging.getLogger(__name__)

INTERVAL = 10.0
"""Seconds between two checks."""

DATA_INTERVAL = 3
"""Only one in so many checks includes the products' tables, because these queries are slower."""

LOOK_BACK = timedelta(days=7)
"""Maximum age of a failure or missed deadline for which a missing alert is raised."""

GRACE = timedelta(minutes=1)
"""Time that Airflow has to call the callback of a run."""

_MARKET = "market_db"


def check(*, with_data: bool = True) -> None:
    """Raise and resolve alerts, and send their messages.

    If a database does not respond, the error is logged, and its alerts stay as they are.

    Args:
        with_data: Whether to check the products' tables.
    """
    data = (watch_freshness, watch_disabled_tasks, watch_kpi_registry) if with_data else ()
    with _logged_errors():
        # An alert that changes after this is not resolved by these steps.
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


def raise_missing(alerts: Iterable[OpenAlert]) -> None:  # noqa: ARG001 - it needs the resolved alerts, too
    """Raise alerts about failed and late runs whose callback could not, for example while ``ops_db`` was down.

    Four kinds of runs have none: those that ended before this database had alerts, those that a user marked as failed,
    those whose work a later run did, and manual runs with wrong params.
    """
    until = datetime.now(UTC) - GRACE
    ((begin,),) = execute("alerts/queries/begin.sql", {})
    since = max(until - LOOK_BACK, begin)
    dag_ids = list(CATALOG)
    reported: dict[tuple[str, str, str], datetime | None] = {
        (kind, dag_id, run_id): resolved_at
        for kind, dag_id, run_id, resolved_at in execute("alerts/queries/reported_runs.sql", {"since": since})
    }
    newest_success = cache(runs.newest_success)
    missing = [
        (run, ended)
        for run, ended in runs.failed_between(dag_ids, since, until)
        if not _is_reported(reported, run, ended) and not _is_redone(run, newest_success)
    ]
    by_hand = {
        dag_id: runs.marked([run for run, _ in missing if run.dag_id == dag_id], runs.FAILED) for dag_id in dag_ids
    }
    for run, ended in missing:
        if run.run_id in by_hand[run.dag_id]:
            continue
        failure = runs.failure_of(run)
        if not has_wrong_params(failure, run.run_type):
            text = messages.failed(run.dag_id, run.run_id, run, failure, ended)
            raise_alert(Alert(Kind.FAILED, run.dag_id, ended, text, (run.run_id,)))
    for run, deadline in runs.late_between(dag_ids, since, until):
        if not reported.keys() & {(kind.value, run.dag_id, run.run_id) for kind in (Kind.LATE, Kind.FAILED)}:
            window = (run.data_interval_start, run.data_interval_end)
            text = messages.late(run.dag_id, run.run_id, run.run_after, run.state, deadline, window)
            raise_alert(Alert(Kind.LATE, run.dag_id, deadline, text, (run.run_id,)))


def _is_reported(reported: Mapping[tuple[str, str, str], datetime | None], run: DagRun, ended: datetime) -> bool:
    key = (Kind.FAILED.value, run.dag_id, run.run_id)
    resolved_at = reported.get(key)
    return key in reported and (resolved_at is None or resolved_at >= ended)


def _is_redone(run: DagRun, newest_success: Callable[[str], DagRun | None]) -> bool:
    """Whether a run failed and a later run did its work."""
    if run.state != runs.FAILED or not messages.redone_by_next(run.dag_id, run):
        return False
    newest = newest_success(run.dag_id)
    # A run that started before the end of the failed run did not get its work.
    return bool(
        newest
        and newest.run_after > run.run_after
        and newest.start_date
        and run.end_date
        and newest.start_date >= run.end_date
    )


def resolve_runs(alerts: Iterable[OpenAlert]) -> None:
    """Resolve alerts about runs that succeeded, were deleted, or whose work a later run did."""
    newest_success = cache(runs.newest_success)
    for alert in _of(alerts, Kind.LATE, Kind.FAILED):
        members = runs.by_id(alert.subject, alert.members)
        outcomes = {run_id: _outcome(alert.kind, members.get(run_id), newest_success) for run_id in alert.members}
        ended = {run_id: outcome for run_id, outcome in outcomes.items() if outcome is not None}
        if len(ended) < len(outcomes):
            continue
        succeeded = [run for run in members.values() if ended[run.run_id] is Outcome.SUCCEEDED]
        by_hand = runs.marked(succeeded, runs.SUCCESS)
        resolve(alert, messages.recovered(alert, {**ended, **dict.fromkeys(by_hand, Outcome.MARKED)}))


def _outcome(kind: Kind, run: DagRun | None, newest_success: Callable[[str], DagRun | None]) -> Outcome | None:
    """How a run with an alert ended; None while its alert has to stay open."""
    if run is None:
        return Outcome.DELETED
    if run.state == runs.SUCCESS:
        return Outcome.SUCCEEDED
    if run.state == runs.FAILED and kind is Kind.LATE:
        return Outcome.FAILED
    return Outcome.REDONE if _is_redone(run, newest_success) else None


def watch_freshness(alerts: Iterable[OpenAlert]) -> None:
    """Raise an alert for each stale table, and resolve the alerts of fresh tables.

    The alert of a table whose DAGs are paused is resolved without a message. The alert of a table that is empty, or has
    no connection, stays open.
    """
    found = freshness.check()
    for one in found:
        if one.state is State.STALE and one.newest and one.waiting_since:
            target = one.target
            text = messages.stale(one, datetime.now(UTC))
            raise_alert(Alert(Kind.STALE, target.table, one.waiting_since + target.max_age, text))
    states = {one.target.table: one.state for one in found}
    for alert in _of(alerts, Kind.STALE):
        state = states.get(alert.subject)
        if state is State.FRESH:
            since = messages.minute(alert.since)
            resolve(alert, f"RECOVERED: {alert.subject} is fresh again. It was stale since {since}.")
        elif state is State.PAUSED:
            resolve(alert, None)


def watch_dead_letters(alerts: Iterable[OpenAlert]) -> None:
    """Raise an alert while too many dead letters are open."""
    ((depth, since),) = execute("alerts/queries/dead_letter_depth.sql", {})
    if depth >= ALERT_DEPTH:
        raise_alert(Alert(Kind.DEAD_LETTERS, "ops.dead_letters", since, messages.dead_letters(depth, since)))
    else:
        _resolve(alerts, Kind.DEAD_LETTERS, f"RECOVERED: fewer than {ALERT_DEPTH} dead letters are open.")


def watch_disabled_tasks(alerts: Iterable[OpenAlert]) -> None:
    """Raise an alert while OHLCV tasks are disabled."""
    try:
        ((exists,),) = execute("alerts/queries/has_ohlcv_tasks.sql", {}, _MARKET)
        tasks = execute("alerts/queries/disabled_tasks.sql", {}, _MARKET) if exists else []
    except UnknownConnectionError:
        return
    if tasks:
        names = tuple(name for name, _ in tasks)
        since = tasks[0][1] or datetime.now(UTC)
        raise_alert(Alert(Kind.TASK_DISABLED, "ohlcv.tasks", since, messages.disabled(names, since), names))
    else:
        _resolve(alerts, Kind.TASK_DISABLED, "RECOVERED: no OHLCV task is disabled.")


def watch_kpi_registry(alerts: Iterable[OpenAlert]) -> None:
    """Raise an alert while entries of the KPI registry are invalid, before and after the runs that do not send them."""
    text = registry.load()
    if text is None:
        # Nobody has KPIs, or Airflow's database does not respond.
        return
    try:
        dropped = registry.parse(text).dropped
    except registry.RegistryError:
        # The runs fail, and have alerts.
        return
    if dropped:
        names = tuple(entry.name for entry in dropped)
        text = messages.kpi_registry(dropped)
        raise_alert(Alert(Kind.KPI_REGISTRY, registry.VARIABLE, datetime.now(UTC), text, names))
    else:
        _resolve(alerts, Kind.KPI_REGISTRY, "RECOVERED: every active entry of the KPI registry is valid.")


def _resolve(alerts: Iterable[OpenAlert], kind: Kind, text: str) -> None:
    for alert in _of(alerts, kind):
        resolve(alert, text)


def _of(alerts: Iterable[OpenAlert], *kinds: Kind) -> Iterator[OpenAlert]:
    return (alert for alert in alerts if alert.kind in kinds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check until the process ends."""
    parser = argparse.ArgumentParser(
        prog="python -m aggregator.alerts.watch", description="Send alerts about runs and data."
    )
    parser.add_argument("--once", action="store_true", help="check once, for a cron job")
    parser.add_argument("--heartbeat", type=Path, metavar="FILE", help="touched after each check, for a health check")
    options = parser.parse_args(arguments)
    # Airflow finds connections from its database only if this is set.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for number in count():
        check(with_data=number % DATA_INTERVAL == 0)
        if options.heartbeat:
            options.heartbeat.touch()
        if options.once:
            break
        time.sleep(INTERVAL)
    return 0


if __name__ == "__main__":
    sys.exit(main())
