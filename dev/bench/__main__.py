"""Run the measurements: ``python -m dev.bench [name …] [--quick]``."""

from __future__ import annotations

import argparse
import importlib
import os
import tempfile
from pathlib import Path

from rich.console import Console

from dev import postgres

BENCHES = ("upsert", "transfer", "analytics", "ohlcv", "ohlcv_run", "fan_out")
"""Modules of this package with a ``run(server, *, quick, console)``."""

LONG_BENCHES = ("fan_out_large",)
"""Likewise, but run only if they are named."""


def main() -> None:
    """Measure against a throw-away PostgreSQL, and print one table for each bench."""
    parser = argparse.ArgumentParser(prog="python -m dev.bench", description=main.__doc__)
    known = (*BENCHES, *LONG_BENCHES)
    help_ = f"which benches: {', '.join(known)} (default: all but {', '.join(LONG_BENCHES)})"
    parser.add_argument("names", nargs="*", metavar="name", help=help_)
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it works, not how fast")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(known):
        parser.error(f"no such bench: {', '.join(sorted(unknown))}")
    console = Console()
    with tempfile.TemporaryDirectory(prefix="aggregator-bench-") as folder:
        # Airflow's hooks are among the peers: configured before the first import, and quiet.
        os.environ["AIRFLOW_HOME"] = folder
        os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
        os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "WARNING"
        server = postgres.start(Path(folder) / "postgres", durable=False)
        try:
            for name in arguments.names or BENCHES:
                importlib.import_module(f"dev.bench.{name}").run(server, quick=arguments.quick, console=console)
        finally:
            server.stop("immediate")


if __name__ == "__main__":
    main()
