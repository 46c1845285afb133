"""`fan_out` with 1,000 KPIs and more than Airflow's own ``max_map_length``: long, so it runs only if it is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dev.bench import fan_out

if TYPE_CHECKING:
    from rich.console import Console

    from dev.postgres import Postgres

SIZES = (2, 1000, 1100)

AIRFLOWS_LONGEST_LIST = 1024


def run(server: Postgres, *, quick: bool, console: Console) -> None:
    """Measure as `fan_out` does.

    Args:
        server: Not used.
        quick: The same as `fan_out`.
        console: Where the table goes.
    """
    if quick:
        fan_out.run(server, quick=quick, console=console)
    else:
        fan_out.measure(SIZES, console, longest_list=AIRFLOWS_LONGEST_LIST)
