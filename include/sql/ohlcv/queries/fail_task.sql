-- Called by aggregator.ohlcv.aggregate, for a task whose rows PostgreSQL refuses. Returns the new status of the task.
select ohlcv.agg_finish(%(run_id)s, result, %(auto_disable_hard_fails)s, %(job_name)s) as status
from jsonb_populate_record(
    null::ohlcv.task_result,
    jsonb_build_object(
        'symbol', %(symbol)s::text,
        'timeframe', %(timeframe)s::text,
        'outcome', 'hard',
        'error', %(error)s::text
    )
) as result
