"""Executes steps of OHLCV runs in a process that can be killed: ``python -m tests.ohlcv.worker NAME STEPS END …``."""

from __future__ import annotations

import os
import runpy
import signal
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tests.airflow_context import context

DIE = "die"
"""A step that kills the process with SIGKILL."""

_FILE = Path(__file__).parents[2] / "dags" / "ohlcv_aggregation.py"


def main(name: str, steps: str, *ends: str) -> None:
    """Execute some steps of the runs of some intervals, by the operators of the DAG.

    Args:
        name: Prefix of the run ids; the end of the interval follows.
        steps: ``plan``, ``aggregate``, ``finish`` and `DIE`, separated by commas.
        ends: Ends of the intervals.
    """
    dag = runpy.run_path(str(_FILE))["plan"].dag
    for end in map(datetime.fromisoformat, ends):
        # The plan of another process: two symbols, with one shard each.
        instances: Any = [[{"shard": n, "of": 2, "first": symbol, "last": symbol} for n, symbol in enumerate("AB")]]
        for step in steps.split(","):
            if step == DIE:
                os.kill(os.getpid(), signal.SIGKILL)
            elif step == "plan":
                instances = _execute(dag.get_task(step), dag, name, end)
            elif step == "aggregate":
                for shards in instances:
                    _execute(dag.get_task(step).unmap({"shards": shards}), dag, name, end)
            else:
                _execute(dag.get_task(step), dag, name, end)


def _execute(task: Any, dag: Any, name: str, end: datetime) -> Any:
    given = context(task, end - timedelta(minutes=5), end)
    given["run_id"] = given["dag_run"].run_id = given["ti"].run_id = f"{name}__{end.isoformat()}"
    given["params"] = dict.fromkeys(("startDate", "endDate", "symbols", "timeframes")) | {"dryRun": True}
    given["dag"] = dag
    return task.execute(given)


if __name__ == "__main__":
    main(*sys.argv[1:])
