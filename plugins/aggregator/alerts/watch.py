"""Watches what no run can tell: stale data, recoveries, messages that could not be sent; one process beside Airflow's.

    python -m aggregator.alerts.watch [--once]

It does not need the scheduler, so it tells when that is down. Two of them do no harm.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from aggregator.alerts import freshness
from aggregator.alerts.deadline import AT_WORK
from aggregator.alerts.freshness import State
from aggregator.alerts.notifier import deliver
from aggregator.alerts.store import Alert, Kind, OpenAlert, execute, open_alerts, raise_alert, settle
from aggregator.alerts.wording import minute, run_link
from aggregator.dead_letters import TOO_MANY
from aggregator.errors import AggregatorError, UnknownConnectionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

log = logging.getLogger(__name__)

EVERY = 10.0
"""Seconds between two looks."""

DATA_EVERY = 3
"""Every how many looks the products' tables are looked at: that costs more than a look at alerts and runs."""

_UNWELL = {Kind.LATE: AT_WORK, Kind.FAILED: {*AT_WORK, "failed"}}
"""States of a run in which its alert stays open. A late run that fails is told of as failed."""

NAMED_AT_MOST = 5
"""Disabled tasks that a text names."""

_MARKET = "market_db"


def look(*, at_data: bool = True) -> None:
    """Raise and settle what has changed since the last look, and send what is to be sent.

    What cannot be looked at, as its database does not answer, is logged and left as it is.

    Args:
        at_data: Look at the products' tables, too.
    """
    data = (watch_freshness, watch_disabled_tasks) if at_data else ()
    with _logged_errors():
        # One of them that is settled or gets members meanwhile is not settled by this list.
        alerts = open_alerts()
        for step in (settle_runs, watch_dead_letters, *data):
            with _logged_errors():
                step(alerts)
        deliver()


@contextmanager
def _logged_errors() -> Iterator[None]:
    try:
        yield
    except AggregatorError as error:
        log.error("This look was not finished: %s", error)  # noqa: TRY400


def settle_runs(alerts: Iterable[OpenAlert]) -> None:
    """Settle alerts about runs that have succeeded meanwhile, or were deleted.

    Args:
        alerts: Those that are open.

    Raises:
        AggregatorError: The runs could not be looked at, or the alerts not be written.
    """
    for alert in _of(alerts, Kind.LATE, Kind.FAILED):
        states = _states(alert.subject, alert.members)
        if not set(states.values()) & _UNWELL[alert.kind]:
            recovered = "success" in states.values()
            settle(alert, _recovery_of_runs(alert) if recovered else None)


def _states(dag_id: str, run_ids: Iterable[str]) -> dict[str, str]:
    query = select(DagRun.run_id, DagRun.state).where(DagRun.dag_id == dag_id, DagRun.run_id.in_(run_ids))
    try:
        with create_session(scoped=False) as session:
            return {run_id: str(state) for run_id, state in session.execute(query)}
    except SQLAlchemyError as error:
        # Its text names the database.
        msg = f"Airflow's database did not answer ({type(error).__name__}); alerts about runs stay as they are."
        raise AggregatorError(msg) from None


def _recovery_of_runs(alert: OpenAlert) -> str:
    what = "is no longer late" if alert.kind is Kind.LATE else "has recovered"
    runs = f"Run {alert.members[0]} has" if len(alert.members) == 1 else f"{len(alert.members)} runs have"
    began = f"The trouble began at {minute(alert.since)}."
    return f"RECOVERED: {alert.subject} {what}. {runs} succeeded. {began} {run_link(alert.subject, alert.members[-1])}"


def watch_freshness(alerts: Iterable[OpenAlert]) -> None:
    """Raise an alert for each table that is stale, settle those of tables that are fresh again.

    One that is not to be fresh now, as its DAGs are paused, is settled without a word. Of one that has lost its data or
    its connection the alert stays open.

    Args:
        alerts: Those that are open.

    Raises:
        AggregatorError: The alerts could not be written.
    """
    found = freshness.look()
    for one in found:
        if one.state is State.STALE and one.newest and one.waiting_since:
            target = one.target
            lag = f"{one.lag} " if one.lag else ""
            text = (
                f"STALE: {target.table} has data up to {minute(one.newest)}. What came after "
                f"{minute(one.waiting_since)} should be in it {target.max_age} later at most. "
                f"{lag}{run_link(target.dag_id)}"
            )
            raise_alert(Alert(Kind.STALE, target.table, one.waiting_since + target.max_age, text))
    states = {one.target.table: one.state for one in found}
    for alert in _of(alerts, Kind.STALE):
        state = states.get(alert.subject)
        if state is State.FRESH:
            settle(alert, f"RECOVERED: {alert.subject} is fresh again. It was stale since {minute(alert.since)}.")
        elif state is State.PAUSED:
            settle(alert, None)


def watch_dead_letters(alerts: Iterable[OpenAlert]) -> None:
    """Raise an alert while there are too many dead letters.

    Args:
        alerts: Those that are open.

    Raises:
        AggregatorError: The letters could not be read, or the alerts not be written.
    """
    ((depth, since),) = execute("ops/alerts/dead_letter_depth.sql", {})
    if depth >= TOO_MANY:
        text = f"DEAD LETTERS: {depth} runs have failed and wait for a replay: python -m aggregator.dead_letters list"
        raise_alert(Alert(Kind.DEAD_LETTERS, "ops.dead_letters", since, text))
        return
    for alert in _of(alerts, Kind.DEAD_LETTERS):
        settle(alert, f"RECOVERED: fewer than {TOO_MANY} dead letters are open.")


def watch_disabled_tasks(alerts: Iterable[OpenAlert]) -> None:
    """Raise an alert while OHLCV tasks are disabled.

    Args:
        alerts: Those that are open.

    Raises:
        AggregatorError: The tasks could not be read, or the alerts not be written.
    """
    try:
        ((there,),) = execute("ops/alerts/has_ohlcv_tasks.sql", {}, _MARKET)
        tasks = execute("ops/alerts/disabled_tasks.sql", {}, _MARKET) if there else []
    except UnknownConnectionError:
        return
    if tasks:
        names = tuple(name for name, _ in tasks)
        more = f" and {len(names) - NAMED_AT_MOST} more" if len(names) > NAMED_AT_MOST else ""
        text = (
            f"DISABLED: {', '.join(names[:NAMED_AT_MOST])}{more}: bars are not built any more after repeated hard "
            "failures; ops.ops_issues says why. When that is mended: python -m aggregator.ohlcv reset"
        )
        since = tasks[0][1] or datetime.now(UTC)
        raise_alert(Alert(Kind.TASK_DISABLED, "ohlcv.tasks", since, text, names))
        return
    for alert in _of(alerts, Kind.TASK_DISABLED):
        settle(alert, "RECOVERED: no OHLCV task is disabled any more.")


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
        look(at_data=number % DATA_EVERY == 0)
        if options.heartbeat:
            options.heartbeat.touch()
        if options.once:
            break
        time.sleep(EVERY)
    return 0


if __name__ == "__main__":
    sys.exit(main())
