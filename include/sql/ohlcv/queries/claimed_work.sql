-- Called by aggregator.ohlcv.plan. Returns the claimed symbols in order, and the approximate number of their due
-- windows of candles.
with claimed as (
    select
        task.symbol,
        case
            when source.is_base
                then
                    extract(
                        epoch from %(as_of)s::timestamptz - coalesce(
                            task.cursor,
                            task.starts_at,
                            ohlcv.next_source_row(task.symbol, task.source_timeframe, '-infinity'),
                            %(as_of)s::timestamptz
                        )
                    ) / extract(epoch from task.size)
        end as windows
    from ohlcv.tasks as task
    inner join ohlcv.timeframes as source on task.source_timeframe = source.timeframe
    where task.owner = %(run_id)s and task.status = 'running'
)

select
    coalesce(array_agg(distinct symbol), '{}') as symbols,
    coalesce(sum(least(windows, %(max_windows_per_task)s)) filter (where windows is not null), 0)::bigint as windows
from claimed
