-- Called by aggregator.ohlcv mark-changed, and from psql, after candles were written without statement triggers: by a
-- subscriber of a logical replication, or while triggers were disabled.
--
-- Ignores the cursor: a run may have read the candles and not stored its cursor yet. Windows after the cursor are built
-- anyway.
create or replace function ohlcv.mark_changed(p_symbols text[], p_from timestamptz, p_to timestamptz)
returns table (symbol text, has_candles boolean)
language sql
volatile
as $$
    with changed as (
        select
            task.symbol,
            greatest(ohlcv.align(bounds.first, task.size), ohlcv.align(task.starts_at, task.size)) as window_start,
            ohlcv.align(bounds.last + task.size - interval '1 microsecond', task.size) as ends_at,
            coalesce(
                ohlcv.next_source_row(task.symbol, task.source_timeframe, bounds.first) < bounds.last, false
            ) as has_candles
        from (
            select
                -- Retention drops candles and keeps their bars.
                greatest(p_from, min(partition.starts_at)) as first,
                least(p_to, now()) as last
            from ohlcv.candle_partitions() as partition
        ) as bounds
        cross join ohlcv.tasks as task
        where task.timeframe = '15m' and (p_symbols is null or task.symbol = any(p_symbols))
    ),

    marked as (
        insert into ohlcv.stale_windows (symbol, timeframe, window_start, ends_at, empties)
        -- Without any candle in the range, bars are kept: the candles may still arrive.
        select changed.symbol, '15m', changed.window_start, changed.ends_at, changed.has_candles
        from changed
        where changed.window_start < changed.ends_at
        returning stale_windows.symbol, stale_windows.empties
    )

    select marked.symbol, marked.empties
    from marked
    order by marked.symbol
$$;

comment on function ohlcv.mark_changed is
'Marks the windows from p_from to p_to stale, of all symbols if none are given; returns the symbols, and whether '
'they have candles in the range. Symbols without candles keep their bars';
