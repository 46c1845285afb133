"""Runs that failed after their retries, one row each in ``ops.dead_letters`` (spec: analytics suite, dead letters).

The row is ``{type, scheduledFor, correlationId, error, attempts}`` of the queue's messages, in PostgreSQL's spelling.
It is open until every task that failed has succeeded in a later try.

    python -m aggregator.alerts.dead_letters list
    python -m aggregator.alerts.dead_letters replay [--id ID …]
    python -m aggregator.alerts.dead_letters discard --id ID …
"""

from __future__ import annotations

import argparse
import logging
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from aggregator.core import failures
from aggregator.core.catalog import CATALOG
from aggregator.core.errors import AggregatorError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

log = logging.getLogger(__name__)

CONNECTION = "ops_db"

ALERT_DEPTH = 10
"""Open letters from which on each new one is reported as an error (spec: a depth of 10 raises an alert)."""

TIMEOUT = timedelta(seconds=30)
"""The longest that a statement about letters may take: it holds up the end of a task."""


def record(context: Context) -> None:
    """Write the letter of a run that failed, or open it again. A database that is down is logged, and nothing else.

    As the callback of a task it knows the error, and is not called where the task's process was killed. As the callback
    of a DAG it is called for every run that failed, knows no error, and leaves what is written as it is. A manual run
    with wrong params leaves no letter: a replay would fail again.

    Args:
        context: Airflow's context of the task's or the run's callback.
    """
    task, run = context.get("ti"), context.get("dag_run")
    if run and failures.has_wrong_params(_failure(context), run.run_type):
        return
    dag_id = context["dag"].dag_id
    letter = {
        "type": (dag_id in CATALOG and CATALOG[dag_id].message) or dag_id,
        "scheduled_for": run.run_after if run else None,
        "error": _text(context.get("exception")),
        "attempts": task.try_number if task else 1,
        "dag_id": dag_id,
        "run_id": context["run_id"],
        "failed_task_ids": [task.task_id] if task else [],
        # To the callback of a run, Airflow says when the run has ended, and not when its task has.
        "failed_at": (task and task.end_date) or (run and run.end_date),
    }
    try:
        ((depth,),) = _execute("alerts/queries/record_dead_letter.sql", letter)
    except AggregatorError as error:
        log.error("The dead letter of this run could not be written: %s It says: %s", error, letter)  # noqa: TRY400
        return
    if depth >= ALERT_DEPTH:
        log.error(
            "DEAD LETTERS: %d runs have failed and wait for a replay. depth=%d limit=%d", depth, depth, ALERT_DEPTH
        )


def _failure(context: Context) -> failures.Failure | None:
    exception = context.get("exception")
    if isinstance(exception, BaseException):
        return failures.Failure.of(context["ti"].task_id, 1, failures.describe(exception, context["ti"].try_number))
    return failures.of_run(context)


def resolve(context: Context) -> None:
    """Take a task that has succeeded off its run's letter. A database that is down is logged, and nothing else.

    Args:
        context: Airflow's context of the task's callback.
    """
    task = context["ti"]
    # Whoever succeeds at the first try has no letter.
    if task.try_number == 1:
        return
    try:
        _execute(
            "alerts/queries/resolve_dead_letter.sql",
            {"dag_id": task.dag_id, "run_id": task.run_id, "task_id": task.task_id},
        )
    except AggregatorError as error:
        log.error("The dead letter of this run, if it has one, could not be settled: %s", error)  # noqa: TRY400


def _text(exception: object) -> str | None:
    """What a letter says of an error; of one that is not ours only its class, as its text may hold anything."""
    if not isinstance(exception, BaseException):
        return None
    name = type(exception).__name__
    return f"{name}: {exception}" if isinstance(exception, AggregatorError) else name


def _execute(file: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    from aggregator.postgres import hook as postgres

    return postgres.execute(file, parameters, CONNECTION, timeout=TIMEOUT, application_name="aggregator/dead_letters")


def show() -> int:
    """Print the open letters.

    Returns:
        0, the exit code.
    """
    # Tasks import this module and print nothing.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    letters = _execute("alerts/queries/open_dead_letters.sql", {"ids": None})
    if not letters:
        print("No dead letters.")
        return 0
    table = Table("id", title="Dead letters", show_lines=True)
    table.add_column("message", no_wrap=True)
    table.add_column("attempts")
    table.add_column("error", overflow="fold")
    for id_, type_, scheduled_for, dag_id, run_id, attempts, error in letters:
        due = f"\ndue {scheduled_for:%Y-%m-%d %H:%M}" if scheduled_for else ""
        words = f"{dag_id}/{run_id}\n{error or 'Its process was killed.'}"
        table.add_row(*map(Text, (str(id_), f"{type_}{due}", str(attempts), words)))
    Console().print(table)
    print("Replay them: python -m aggregator.alerts.dead_letters replay [--id …]")
    return 0


def replay(ids: Sequence[int] | None) -> int:
    """Clear the failed tasks of runs, so that Airflow's scheduler does them again.

    Args:
        ids: Of the letters; None for all open ones.

    Returns:
        The exit code: 0, or 1 if one of the ids is not that of an open letter.
    """
    # A whole Airflow: seconds.
    from airflow.cli import cli_parser

    letters = _execute("alerts/queries/open_dead_letters.sql", {"ids": ids})
    if not (letters or ids):
        print("No dead letters.")
    for id_, _, _, dag_id, run_id, _, _ in letters:
        print(f"{id_}: {dag_id}/{run_id}: ", end="", flush=True)
        arguments = cli_parser.get_parser().parse_args(
            ["dags", "clear", dag_id, f"--run-id={run_id}", "--only-failed", "--yes"]
        )
        arguments.func(arguments)
    return _report_unknown(ids, {id_ for id_, *_ in letters})


def discard(ids: Sequence[int]) -> int:
    """Settle letters whose runs shall not be done again.

    Args:
        ids: Of the letters.

    Returns:
        The exit code: 0, or 1 if one of the ids is not that of an open letter.
    """
    done = {id_ for (id_,) in _execute("alerts/queries/discard_dead_letters.sql", {"ids": ids})}
    for id_ in sorted(done):
        print(f"{id_}: settled")
    return _report_unknown(ids, done)


def _report_unknown(ids: Sequence[int] | None, known: set[int]) -> int:
    unknown = sorted(set(ids or ()) - known)
    for id_ in unknown:
        print(f"{id_}: there is no open letter with this id", file=sys.stderr)
    return 1 if unknown else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """List, replay or discard dead letters.

    Returns:
        The exit code: 0, or 1 after an error, which is printed.
    """
    parser = argparse.ArgumentParser(prog="python -m aggregator.alerts.dead_letters", description="Runs that failed.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="show the open letters")
    again = commands.add_parser("replay", help="clear the failed tasks of the runs, so that they are done again")
    again.add_argument("--id", type=int, nargs="+", help="of the letters; all of them if none is given")
    settled = commands.add_parser("discard", help="settle letters whose runs shall not be done again")
    settled.add_argument("--id", type=int, nargs="+", required=True, help="of the letters")
    given = parser.parse_args(arguments)
    try:
        if given.command == "list":
            return show()
        return replay(given.id) if given.command == "replay" else discard(given.id)
    except AggregatorError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
