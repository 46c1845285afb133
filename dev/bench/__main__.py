"""Runs the benches: ``python -m dev.bench [name …] [--quick]``."""

from __future__ import annotations

import argparse
import importlib
import os
import tempfile
from pathlib import Path

from rich.console import Console

from dev import postgres

BENCHES = ("upsert", "transfer", "analytics", "ohlcv", "ohlcv_run", "fan_out", "maintenance", "operations", "task_cost")
"""Modules of this package with a function ``run(server, *, quick, console)``."""


def main() -> None:
    """Measure on a temporary PostgreSQL server and print the results as tables."""
    parser = argparse.ArgumentParser(prog="python -m dev.bench", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"benches: {', '.join(BENCHES)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="use small sizes, to test the benches themselves")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(BENCHES):
        parser.error(f"no such bench: {', '.join(sorted(unknown))}")
    console = Console()
    with tempfile.TemporaryDirectory(prefix="aggregator-bench-") as folder:
        # Some peers are hooks of Airflow, which reads its configuration at the first import.
        os.environ["AIRFLOW_HOME"] = folder
        os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
        os.environ["AIRFLOW__CORE__PLUGINS_FOLDER"] = str(Path(__file__).parents[2] / "plugins")
        os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "WARNING"
        server = postgres.start(Path(folder) / "postgres", durable=False)
        try:
            for name in arguments.names or BENCHES:
                importlib.import_module(f"dev.bench.{name}").run(server, quick=arguments.quick, console=console)
        finally:
            server.stop("immediate")


if __name__ == "__main__":
    main()
