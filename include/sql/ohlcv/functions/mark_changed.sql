-- Called by aggregator.ohlcv mark-changed, and from psql, after candles were written in a way that fires no statement
-- trigger: by a subscriber of a logical replication, or while the triggers were disabled.
--
-- Without regard to the cursor: a run may have read the candles already and not stored its cursor yet. What is beyond
-- the cursor is built anyway.
create or replace function ohlcv.mark_changed(p_symbols text[], p_from timestamptz, p_to timestamptz)
returns table (symbol text, has_candles boolean)
language sql
volatile
set search_path = ''
set datestyle = 'ISO, MDY'
set timezone = 'UTC'
as $$
    with changed as (
        select
            task.symbol,
            greatest(
                date_bin(task.size, bounds.first, timestamptz '2000-01-01 00:00+00'),
                date_bin(task.size, task.starts_at, timestamptz '2000-01-01 00:00+00')
            ) as window_start,
            date_bin(
                task.size, bounds.last + task.size - interval '1 microsecond', timestamptz '2000-01-01 00:00+00'
            ) as ends_at,
            exists(
                select
                from ohlcv.candles as candle
                where
                    candle.symbol = task.symbol
                    and candle.timeframe in (
                        select frame.timeframe
                        from ohlcv.timeframes as frame
                        where frame.is_base
                    )
                    and candle.ts >= bounds.first
                    and candle.ts < bounds.last
            ) as has_candles
        from (
            select
                -- Bars of months that the retention has dropped have no candles any more.
                greatest(p_from, min(partition.starts_at)) as first,
                least(p_to, now()) as last
            from ohlcv.candle_partitions() as partition
        ) as bounds
        cross join ohlcv.tasks as task
        where task.timeframe = '15m' and (p_symbols is null or task.symbol = any(p_symbols))
    ),

    marked as (
        insert into ohlcv.stale_windows (symbol, timeframe, window_start, ends_at, empties)
        -- An empty source does not erase bars: it may be that the candles are still to come.
        select changed.symbol, '15m', changed.window_start, changed.ends_at, changed.has_candles
        from changed
        where changed.window_start < changed.ends_at
        returning stale_windows.symbol, stale_windows.empties
    )

    select marked.symbol, marked.empties
    from marked
    order by marked.symbol
$$;

comment on function ohlcv.mark_changed(text[], timestamptz, timestamptz) is
'Has the windows from p_from up to p_to built again as after a change of their candles, of all symbols if none are '
'given; returns the symbols, and whether they have candles there: without any, they keep their bars';
revoke all on function ohlcv.mark_changed(text[], timestamptz, timestamptz) from public;
