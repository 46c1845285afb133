"""Steps of OHLCV runs in a process of their own, to be killed: ``python -m tests.ohlcv.worker NAME STEPS END …``."""

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
"""A step that is ``kill -9``."""

_FILE = Path(__file__).parents[2] / "dags" / "ohlcv_aggregation.py"


def main(name: str, steps: str, *ends: str) -> None:
    """Do some steps of the runs of some intervals, by the operators of the DAG.

    Args:
        name: Makes the run ids, with the interval's end.
        steps: ``plan``, ``aggregate``, ``finish`` and `DIE`, with commas.
        ends: Of the intervals.
    """
    dag = runpy.run_path(str(_FILE))["plan"].dag
    for end in map(datetime.fromisoformat, ends):
        # Where another process has planned: two symbols, and a shard for each.
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
