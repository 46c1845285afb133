"""Dead letters: runs that failed after their retries, one row each in ``ops.dead_letters``.

A row has the fields of the former queue: type, scheduled_for, correlation_id, error, attempts. It is open until every
failed task has succeeded in a later try.

    python -m aggregator.alerts.dead_letters list
    python -m aggregator.alerts.dead_letters replay [--id ID …]
    python -m aggregator.alerts.dead_letters discard --id ID …
"""

from __future__ import annotations

import argparse
import logging
import sys
from typing import TYPE_CHECKING

from aggregator.alerts.store import execute
from aggregator.core import failures
from aggregator.core.catalog import facts_of
from aggregator.core.errors import AggregatorError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

log = logging.getLogger(__name__)

ALERT_DEPTH = 10
"""Number of open letters that raises an alert."""


def record(context: Context) -> None:
    """Write the letter of a failed run, or reopen it. If the database is down, the letter is logged instead.

    Airflow calls this as a callback of the task, with the error, unless the task was killed. Airflow also calls it as a
    callback of the DAG, without the error, for every failed run; this keeps the error that was written before. A manual
    run with wrong params has no letter, because a replay would fail again.
    """
    task, run = context.get("ti"), context.get("dag_run")
    if run and failures.has_wrong_params(_failure(context), run.run_type):
        return
    dag_id = context["dag"].dag_id
    letter = {
        "type": facts_of(dag_id).message or dag_id,
        "scheduled_for": run.run_after if run else None,
        "error": _text(context.get("exception")),
        "attempts": task.try_number if task else 1,
        "dag_id": dag_id,
        "run_id": context["run_id"],
        "failed_task_ids": [task.task_id] if task else [],
        # The callback of a run gets the end of the run, and not that of its task.
        "failed_at": (task and task.end_date) or (run and run.end_date),
    }
    try:
        ((depth,),) = execute("alerts/queries/record_dead_letter.sql", letter)
    except AggregatorError as error:
        log.error("The dead letter of this run was not written: %s letter=%s", error, letter)  # noqa: TRY400
        return
    if depth >= ALERT_DEPTH:
        log.error("DEAD LETTERS: failed runs wait for a replay. depth=%d limit=%d", depth, ALERT_DEPTH)


def _failure(context: Context) -> failures.Failure | None:
    exception = context.get("exception")
    if isinstance(exception, BaseException):
        return failures.Failure(context["ti"].task_id, **failures.describe(exception, context["ti"].try_number))
    return failures.of_run(context)


def resolve(context: Context) -> None:
    """Remove a task that succeeded from the letter of its run. If the database is down, the error is logged."""
    task = context["ti"]
    # A task that succeeds in its first try has no letter.
    if task.try_number == 1:
        return
    try:
        execute(
            "alerts/queries/resolve_dead_letter.sql",
            {"dag_id": task.dag_id, "run_id": task.run_id, "task_id": task.task_id},
        )
    except AggregatorError as error:
        log.error("The dead letter of this run, if it has one, was not resolved: %s", error)  # noqa: TRY400


def _text(exception: object) -> str | None:
    """The error in a letter. Of a foreign error only the class, because its text may contain secrets."""
    if not isinstance(exception, BaseException):
        return None
    name = type(exception).__name__
    return f"{name}: {exception}" if isinstance(exception, AggregatorError) else name


def show() -> None:
    """Print the open letters."""
    # Tasks import this module, and do not need these.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    letters = execute("alerts/queries/open_dead_letters.sql", {"ids": None})
    if not letters:
        print("No dead letters.")
        return
    table = Table("id", title="Dead letters", show_lines=True)
    table.add_column("message", no_wrap=True)
    table.add_column("attempts")
    table.add_column("error", overflow="fold")
    for id_, type_, scheduled_for, dag_id, run_id, attempts, error in letters:
        due = f"\ndue {scheduled_for:%Y-%m-%d %H:%M}" if scheduled_for else ""
        run = f"{dag_id}/{run_id}\n{error or 'Its process was killed.'}"
        table.add_row(*map(Text, (str(id_), f"{type_}{due}", str(attempts), run)))
    Console().print(table)
    print("To replay them: python -m aggregator.alerts.dead_letters replay [--id ID …]")


def replay(ids: Sequence[int] | None) -> set[int]:
    """Clear the failed tasks of the runs of all open letters, or of some, and return the ids of the letters."""
    # The import takes seconds.
    from airflow.cli import cli_parser

    letters = execute("alerts/queries/open_dead_letters.sql", {"ids": ids})
    if not (letters or ids):
        print("No dead letters.")
    for id_, _, _, dag_id, run_id, _, _ in letters:
        print(f"{id_}: {dag_id}/{run_id}: ", end="", flush=True)
        arguments = cli_parser.get_parser().parse_args(
            ["dags", "clear", dag_id, f"--run-id={run_id}", "--only-failed", "--yes"]
        )
        arguments.func(arguments)
    return {id_ for id_, *_ in letters}


def discard(ids: Sequence[int]) -> set[int]:
    """Resolve open letters without a re-run, and return their ids."""
    done = {id_ for (id_,) in execute("alerts/queries/discard_dead_letters.sql", {"ids": ids})}
    for id_ in sorted(done):
        print(f"{id_}: discarded")
    return done


def main(arguments: Sequence[str] | None = None) -> int:
    """List, replay or discard dead letters. The exit code is 1 after an error, or if no open letter has a given id."""
    parser = argparse.ArgumentParser(
        prog="python -m aggregator.alerts.dead_letters", description="Dead letters: failed runs."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="show the open letters")
    again = commands.add_parser("replay", help="clear the failed tasks of the runs, so that Airflow re-runs them")
    again.add_argument("--id", type=int, nargs="+", help="ids of letters; without them, all open letters")
    unwanted = commands.add_parser("discard", help="resolve letters without a re-run")
    unwanted.add_argument("--id", type=int, nargs="+", required=True, help="ids of letters")
    given = parser.parse_args(arguments)
    try:
        if given.command == "list":
            show()
            return 0
        known = replay(given.id) if given.command == "replay" else discard(given.id)
    except AggregatorError as error:
        print(error, file=sys.stderr)
        return 1
    unknown = sorted({*(given.id or ())} - known)
    for id_ in unknown:
        print(f"{id_}: no open letter has this id", file=sys.stderr)
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
