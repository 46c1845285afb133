"""
### What
Builds bars of 15m, 1h, 4h and 1d in `ohlcv.bars` for every active symbol of `ohlcv.assets`. Bars of 15m are built from
base candles of 1m or 5m in `ohlcv.candles`; each coarser timeframe is built from the one before it. `quality` says how
complete a bar's candles are. Candles that are late, corrected or deleted cause exactly their windows to be rebuilt.

A symbol with invalid candles stops at that window, and the other symbols continue. It is recorded in `ohlcv.frontier`
and `ops.ops_issues`, and it does not fail the run.

### Window
Five minutes. A run is due one minute after the end of its interval. It claims up to `MAX_TASKS_PER_RUN` tasks, and
builds their missing windows that ended at least 30 seconds before the run was due. A backlog is built in several
transactions, each with up to `MAX_WINDOWS_PER_TASK` windows of a task. The last one ends before the run's deadline and
before the next run. `ohlcv.tasks` stores the progress of each task.

Task `build_bars` does all of an ordinary run, and the other tasks are skipped. Its log and its XComs `plan` and
`totals` show what was due and what was built. With more than two shards, `build_shards` builds the bars and `finish`
closes the run. `finish` also runs after a failure.

### Re-run
Safe at any time. Unchanged bars are not rewritten.

- To rebuild the windows that ended in a run's interval, clear the run.
- To rebuild days, start a run with the params `startDate` and `endDate` (both inclusive; one alone is that day), and
  optionally `symbols` and `timeframes`. With `dryRun`, the default, the run only reports what would change.
- If a rebuild fails or runs out of time, clear its run: it continues where it stopped. A dry run restarts.
- To resume disabled tasks, correct their candles and run `python -m aggregator.ohlcv reset`.

A rebuild keeps bars whose candles were dropped by the retention. A misspelled param or a future day fails the run.

### Deadline
4 minutes after a run is due: at :05, :10 and so on. A rebuild has no deadline.

### Owner
market-data
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param

from aggregator.core import metrics
from aggregator.ohlcv.operators import OhlcvBuildOperator, OhlcvFinishOperator, report_totals
from aggregator.wiring import dag_args

DATE: dict[str, Any] = {"type": ["null", "string"], "format": "date"}

with DAG(
    # The next run does the work of a failed one.
    **dag_args("ohlcv_aggregation", retries=2, retry_delay=timedelta(seconds=30)),
    doc_md=__doc__,
    max_active_runs=2,
    params={
        "startDate": Param(None, **DATE, description="First UTC day to rebuild; empty: no rebuild"),
        "endDate": Param(None, **DATE, description="Last UTC day to rebuild; empty: the first day"),
        "symbols": Param(None, type=["null", "array"], description="Symbols to rebuild, one per line; empty: all"),
        "timeframes": Param(
            None,
            type=["null", "array"],
            examples=["15m", "1h", "4h", "1d"],
            description="Timeframes to rebuild; empty: all",
        ),
        "dryRun": Param(default=True, type="boolean", description="Report the changes of a rebuild, store nothing"),
    },
):
    build_bars = OhlcvBuildOperator(
        task_id="build_bars",
        conn_id="market_db",
        execution_timeout=timedelta(minutes=30),
        post_execute=report_totals,
    )
    build_shards = OhlcvBuildOperator.partial(
        task_id="build_shards", conn_id="market_db", execution_timeout=timedelta(minutes=30)
    ).expand(shards=build_bars.output)
    build_shards >> OhlcvFinishOperator(task_id="finish", conn_id="market_db", post_execute=metrics.report_sums)
