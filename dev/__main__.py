"""``python -m dev <command>``: the commands of the Makefile for the local stack."""

from __future__ import annotations

import argparse
import fcntl
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import psycopg
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from dev import demo, drills, scale_out
from dev.airflow_api import AirflowApiError
from dev.postgres import PostgresError
from dev.stack import REPOSITORY, Ports, Stack, StackError, make_writable

if TYPE_CHECKING:
    from collections.abc import Callable

HOME = REPOSITORY / ".local"

QUIET = "ignore:Could not import graphviz,ignore:GitWildMatchPattern,ignore:Using `httpx` with"
"""Warnings of Airflow 3.3.2 about its packages, which every ``airflow`` command prints."""


def steps(console: Console, progress: Progress) -> Callable[[str], None]:
    """Return a function that shows the current step with its duration, and prints a line for each finished step."""
    current: list[str] = []

    def say(step: str) -> None:
        if step.startswith(" "):
            progress.console.print(f"[dim]{step}[/]", highlight=False)
            return
        if not console.is_terminal:
            print(step, flush=True)
        elif current:
            progress.console.print(f"[green]✓[/] {current.pop()}")
        for task in progress.task_ids:
            progress.remove_task(task)
        progress.add_task(step)
        current.append(step)

    return say


def progress(console: Console) -> Progress:
    """Return a progress display of the current step and its duration."""
    columns = (SpinnerColumn(), TextColumn("{task.description} …"), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def run_demo(console: Console) -> int:
    """Run every DAG once on a temporary stack."""
    stack = Stack(HOME / "demo")
    make_writable(HOME)
    with (HOME / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            msg = "Another demo runs in this checkout. Wait until it has finished."
            raise StackError(msg) from None
        stack.remove()  # remains of a killed demo
        try:
            with progress(console) as bar:
                say = steps(console, bar)
                stack.start(Ports.free(), durable=False, say=say)
                outcomes = demo.run(stack, say)
            return demo.report(stack, outcomes, console)
        finally:
            stack.remove()


def run_scale_out(console: Console) -> int:
    """Run a day on a single machine and on workers, and compare the results."""
    with progress(console) as bar:
        outcomes = scale_out.run(HOME / "scale-out", steps(console, bar))
    return scale_out.report(*outcomes, console)


def run_drills(console: Console) -> int:
    """Run the drills in real time: a backfill of a month, and failures of the alert receiver and the scheduler."""
    with progress(console) as bar:
        drills.run(HOME / "drills", steps(console, bar))
    return 0


def up(console: Console) -> int:
    """Start the stack and leave it running."""
    stack = Stack(HOME / "stack")
    with progress(console) as bar:
        ports = Ports.from_environment(stack.kept_ports)
        stack.start(ports, durable=True, say=steps(console, bar), history=True)
    console.print(
        f"""
Airflow runs at [link={stack.airflow_url}]{stack.airflow_url}[/link].
Its Operations page is [link={stack.operations_url}]{stack.operations_url}[/link].
You are signed in as admin: the local stack has no passwords. It listens on 127.0.0.1 only.
The scheduler now runs the latest interval of every DAG.

  make shell   open a shell in which `airflow` and `psql` use the stack
  make down    stop the stack; the data stays in .local/stack for the next `make up`
""",
        soft_wrap=True,
    )
    return 0


def down(console: Console) -> int:
    """Stop the stack."""
    stack = Stack(HOME / "stack")
    if not stack.running:
        console.print("The stack is not running.")
        stack.stop()  # remains of a power failure
        return 0
    with progress(console) as bar:
        steps(console, bar)("Stopping")
        stack.stop()
    console.print("Stopped.")
    return 0


def shell(_: Console) -> int:
    """Open a shell in the stack's environment."""
    stack = running_stack()
    print(
        f"In this shell, `airflow` and `psql` use the stack at {stack.airflow_url}. Leave it with: exit",
        file=sys.stderr,
    )
    environment = {**stack.environment(), "PYTHONWARNINGS": QUIET}
    return subprocess.call([os.environ.get("SHELL", "bash")], env=environment, cwd=REPOSITORY)


def migrate(_: Console) -> int:
    """Migrate the databases of the connections in the environment, or else those of the running stack."""
    ours = any(name.startswith("AIRFLOW_CONN_") and name.endswith("_DB") for name in os.environ)
    environment = {**os.environ, "PYTHONPATH": "plugins"} if ours else running_stack().environment()
    return subprocess.call([sys.executable, "-m", "aggregator.postgres.migrations"], env=environment, cwd=REPOSITORY)


def dead_letters(_: Console) -> int:
    """List the dead letters of the running stack."""
    command = [sys.executable, "-m", "aggregator.alerts.dead_letters", "list"]
    return subprocess.call(command, env=running_stack().environment(), cwd=REPOSITORY)


def doctor(_: Console) -> int:
    """Check the running stack."""
    command = [sys.executable, "-m", "aggregator.doctor", *sys.argv[2:]]
    environment = {**running_stack().environment(), "PYTHONWARNINGS": QUIET}
    return subprocess.call(command, env=environment, cwd=REPOSITORY)


def kpi_registry(_: Console) -> int:
    """Execute a command of the KPI registry on the running stack."""
    command = [sys.executable, "-m", "aggregator.kpi.registry", *sys.argv[2:]]
    return subprocess.call(command, env=running_stack().environment(), cwd=REPOSITORY)


def running_stack() -> Stack:
    """Return the stack of ``make up``.

    Raises:
        StackError: The stack is not running.
    """
    stack = Stack(HOME / "stack")
    if not stack.running:
        msg = "The stack is not running. Start it with: make up"
        raise StackError(msg)
    return stack


COMMANDS = {
    "demo": run_demo,
    "up": up,
    "down": down,
    "shell": shell,
    "migrate": migrate,
    "dead-letters": dead_letters,
    "scale-out": run_scale_out,
    "drills": run_drills,
    "kpi-registry": kpi_registry,
    "doctor": doctor,
}


def main() -> int:
    """Run one command. Expected errors are one paragraph without a traceback."""
    parser = argparse.ArgumentParser(prog="python -m dev")
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="arguments of kpi-registry or doctor")
    # Without a terminal, rich breaks lines at 80 characters.
    console = Console() if sys.stdout.isatty() else Console(width=140)
    options = parser.parse_args()
    if options.arguments and options.command not in {"kpi-registry", "doctor"}:
        parser.error(f"{options.command} takes no arguments")
    try:
        return COMMANDS[options.command](console)
    except (StackError, PostgresError, AirflowApiError) as error:
        console.print(f"[red]{error}[/]", highlight=False)
        return 1
    except (OSError, subprocess.CalledProcessError, psycopg.Error) as error:
        # A full disk, a missing file or a lost server: the reason is enough.
        console.print(f"[red]The command failed on this machine:[/] {' '.join(str(error).split())}", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted. Everything that the command started is stopped.")
        return 130


if __name__ == "__main__":
    sys.exit(main())
