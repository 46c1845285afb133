"""Executes OHLCV runs in a process that can be killed: ``python -m tests.ohlcv.worker NAME DIES_AFTER END …``."""

from __future__ import annotations

import os
import runpy
import signal
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from aggregator.ohlcv import operators
from tests.airflow_context import context

_FILE = Path(__file__).parents[2] / "dags" / "ohlcv_aggregation.py"


def main(name: str, dies_after: str, *ends: str) -> None:
    """Execute the tasks of the runs of some intervals, by the operators of the DAG.

    Args:
        name: Prefix of the run ids; the end of the interval follows.
        dies_after: ``plan``, ``build`` or ``finish``: the process kills itself with SIGKILL after the last transaction
            of this step; empty: it does not.
        ends: Ends of the intervals.
    """
    build = operators.OhlcvBuildOperator._build

    def build_and_die(*arguments: Any) -> Any:
        if dies_after == "plan":
            _die()
        counts = build(*arguments)
        if dies_after == "build":
            _die()
        return counts

    setattr(operators.OhlcvBuildOperator, build.__name__, staticmethod(build_and_die))
    dag = runpy.run_path(str(_FILE))["build_bars"].dag
    for end in map(datetime.fromisoformat, ends):
        if parts := _execute(dag.get_task("build_bars"), dag, name, end):
            for shards in parts:
                _execute(dag.get_task("build_shards").unmap({"shards": shards}), dag, name, end)
            _execute(dag.get_task("finish"), dag, name, end)
        if dies_after == "finish":
            _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _execute(task: Any, dag: Any, name: str, end: datetime) -> Any:
    given = context(task, end - timedelta(minutes=5), end)
    given["run_id"] = given["dag_run"].run_id = given["ti"].run_id = f"{name}__{end.isoformat()}"
    given["params"] = dict.fromkeys(("startDate", "endDate", "symbols", "timeframes")) | {"dryRun": True}
    given["dag"] = dag
    return task.execute(given)


if __name__ == "__main__":
    main(*sys.argv[1:])
