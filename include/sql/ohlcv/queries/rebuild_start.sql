-- Called by aggregator.ohlcv.rebuild, for long ranges. Returns the first UTC day of the range on which the tasks have
-- source rows; the end of the range if there are none.
select
    least(
        date_trunc(
            'day',
            min(ohlcv.next_source_row(task.symbol, task.source_timeframe, %(starts_at)s::timestamptz)),
            'UTC'
        ),
        %(ends_at)s::timestamptz
    ) as first_day
from ohlcv.tasks as task
where task.symbol = any(%(symbols)s::text[]) and task.timeframe = any(%(timeframes)s::text[])
