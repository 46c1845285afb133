-- Called by aggregator.ohlcv.aggregate. Returns counts, the symbols with invalid candles, and whether windows are left.
-- Builds the windows of one timeframe for some symbols, and releases the tasks that have no more windows.
with results as materialized (
    select result
    from ohlcv.aggregate(
        %(run_id)s,
        %(timeframe)s,
        %(symbols)s::text[],
        %(as_of)s,
        %(max_windows_per_task)s,
        %(agg_derivation_version)s
    ) as result
),

finished as materialized (
    select ohlcv.finish_tasks(%(job_name)s, %(run_id)s, array_agg(result), %(auto_disable_hard_fails)s) as tasks
    from results
    having count(*) > 0
)

select
    coalesce((select finished.tasks from finished), 0) as tasks,
    coalesce(sum((result).bars), 0)::integer as bars,
    coalesce(sum((result).poor_bars), 0)::integer as poor_bars,
    coalesce(sum((result).skipped_windows), 0)::integer as skipped_windows,
    coalesce(sum((result).inserted), 0)::integer as inserted,
    coalesce(sum((result).updated), 0)::integer as updated,
    coalesce(sum((result).unchanged), 0)::integer as unchanged,
    coalesce(sum((result).deleted), 0)::integer as deleted,
    coalesce(array_agg((result).symbol) filter (where (result).outcome = 'hard'), '{}') as failed,
    coalesce(bool_or((result).has_more), false) as has_more
from results
