-- Called by aggregator.ohlcv in a rebuild of months. The first UTC day of a range on which some tasks have source rows;
-- the end of the range if they have none.
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
