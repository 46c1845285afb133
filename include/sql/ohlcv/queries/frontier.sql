-- Called by aggregator.ohlcv.cli. Returns the progress of up to 50 tasks, stopped ones first, and the number of all
-- tasks.
select
    symbol,
    timeframe,
    cursor,
    newest_source,
    lag,
    status,
    waits_for,
    overdue,
    last_error,
    count(*) over () as tasks
from ohlcv.frontier
where
    (%(symbols)s::text[] is null or symbol = any(%(symbols)s::text[]))
    and (%(timeframes)s::text[] is null or timeframe = any(%(timeframes)s::text[]))
order by
    status in ('disabled', 'hard_failed') desc,
    last_error asc nulls last,
    overdue desc nulls last,
    lag desc nulls last,
    symbol asc
limit 50
