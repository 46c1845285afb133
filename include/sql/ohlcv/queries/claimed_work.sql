-- Called by aggregator.ohlcv.plan. Returns the claimed symbols in order, and the approximate number of their due
-- windows of candles.
with claimed as (
    select
        task.symbol,
        task.size,
        task.source_timeframe,
        task.source_timeframe in (
            select source.timeframe
            from ohlcv.timeframes as source
            where source.is_base
        ) as is_finest,
        coalesce(task.cursor, task.starts_at) as cursor
    from ohlcv.tasks as task
    where task.owner = %(run_id)s and task.status = 'running'
),

due as (
    select
        extract(
            epoch from %(as_of)s::timestamptz
            - coalesce(cursor, ohlcv.next_source_row(symbol, source_timeframe, '-infinity'), %(as_of)s::timestamptz)
        ) / extract(epoch from size) as windows
    from claimed
    where is_finest
)

select
    (select coalesce(array_agg(distinct symbol), '{}') from claimed) as symbols,
    coalesce((select sum(least(windows, %(max_windows)s)) from due), 0)::bigint as windows
