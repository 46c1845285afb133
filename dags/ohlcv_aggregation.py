"""
### What
Bars of 15m, 1h, 4h and 1d for every active symbol of `ohlcv.assets`, in `ohlcv.bars`: from base candles of 1m or 5m in
`ohlcv.candles`, each timeframe from the one before it. `quality` says how complete a bar's candles are. Candles that
come late, or are corrected or deleted, have exactly their windows built again. A symbol whose candles make no bar stops
at that window while the others go on; it is named in `ohlcv.frontier` and `ops.ops_issues`, and does not fail the run.

### Window
Five minutes. A run takes every window that was over, for half a minute at least, a minute after its interval's end, and
was not built yet, of `MAX_TASKS_PER_RUN` tasks at most. A backlog is built in transactions of `MAX_WINDOWS_PER_TASK`
windows of a task, as many as fit before the run's deadline and the next run. `ohlcv.tasks` remembers how far it is.

### Re-run
Safe at any time. Clear the run: the windows that ended in its interval are built again. To rebuild days, start a run
with the params `startDate` and `endDate` (both inclusive; one alone is that day), `symbols` and `timeframes`; with
`dryRun`, the default, it reports what would change. A misspelled param or a day in the future fails the run. If a
rebuild fails or runs out of time, clear its run: it continues where it stopped. Equal bars are not rewritten, and bars
whose candles are behind the retention are left alone. `python -m aggregator.ohlcv reset` takes disabled tasks up again.

### Deadline
4 minutes after a run is due: at :05, :10 and so on. A rebuild has none.

### Owner
market-data
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param

from aggregator.core import metrics
from aggregator.ohlcv.operators import OhlcvAggregateOperator, OhlcvFinishOperator, OhlcvPlanOperator
from aggregator.wiring import dag_args

DATE = {"type": ["null", "string"], "format": "date"}

with DAG(
    # The next run is another try.
    **dag_args("ohlcv_aggregation", retries=2, retry_delay=timedelta(seconds=30)),
    doc_md=__doc__,
    max_active_runs=2,
    params={
        "startDate": Param(None, **DATE, description="Rebuild from this UTC day; empty: an ordinary run"),
        "endDate": Param(None, **DATE, description="Last UTC day of the rebuild; empty: the first"),
        "symbols": Param(None, type=["null", "array"], description="Of these symbols only, one a line; empty: all"),
        "timeframes": Param(
            None, type=["null", "array"], examples=["15m", "1h", "4h", "1d"], description="Of these only; empty: all"
        ),
        "dryRun": Param(default=True, type="boolean", description="Report what a rebuild would change, change nothing"),
    },
):
    plan = OhlcvPlanOperator(task_id="plan", conn_id="market_db")
    aggregate = OhlcvAggregateOperator.partial(
        task_id="aggregate", conn_id="market_db", execution_timeout=timedelta(minutes=30)
    ).expand(shards=plan.output)
    aggregate >> OhlcvFinishOperator(task_id="finish", conn_id="market_db", post_execute=metrics.report_sums)
