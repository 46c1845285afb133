-- Called by ohlcv.sync_tasks with the 15m tasks as they were before a change of the registry. Built windows stay as
-- they are, unless the change brings candles for them: the next run rebuilds those.
create or replace function ohlcv.follow_changes(p_former ohlcv.tasks[]) returns void
language plpgsql
volatile
as $$
begin
    -- A former base timeframe was in use until its last bar or its last candle, whichever is later.
    insert into ohlcv.former_base_timeframes (symbol, timeframe, starts_at, ends_at)
    select former.symbol, former.source_timeframe, before.ends_at, edge.ends_at
    from unnest(p_former) as former
    inner join ohlcv.tasks as task on former.symbol = task.symbol and former.timeframe = task.timeframe
    inner join ohlcv.timeframes as base on former.source_timeframe = base.timeframe
    cross join lateral (
        select coalesce(max(earlier.ends_at), '-infinity') as ends_at
        from ohlcv.former_base_timeframes as earlier
        where earlier.symbol = former.symbol
    ) as before
    cross join lateral (
        select max(candle.ts) + base.size as ends_at
        from ohlcv.candles as candle
        where candle.symbol = former.symbol and candle.timeframe = former.source_timeframe and candle.ts <= now()
    ) as newest
    cross join lateral (
        select greatest(former.cursor, ohlcv.align(newest.ends_at, former.size)) as ends_at
    ) as edge
    where task.source_timeframe <> former.source_timeframe and edge.ends_at > before.ends_at;

    -- The new base timeframe has candles from before the change, or the start is earlier now.
    insert into ohlcv.stale_windows (symbol, timeframe, window_start, ends_at, empties)
    select former.symbol, former.timeframe, edge.first, edge.last, false
    from unnest(p_former) as former
    inner join ohlcv.tasks as task on former.symbol = task.symbol and former.timeframe = task.timeframe
    cross join lateral (
        select ohlcv.align(min(candle.ts), task.size) as first, former.cursor as last
        from ohlcv.candles as candle
        where
            task.source_timeframe <> former.source_timeframe
            and candle.symbol = task.symbol
            and candle.timeframe = task.source_timeframe
        union all
        select
            ohlcv.align(
                ohlcv.next_source_row(
                    task.symbol, task.source_timeframe, coalesce(ohlcv.align(task.starts_at, task.size), '-infinity')
                ),
                task.size
            ),
            least(former.cursor, ohlcv.align(former.starts_at, task.size))
        where coalesce(task.starts_at, '-infinity') < former.starts_at and former.cursor is not null
    ) as edge
    where edge.first < edge.last;
end
$$;

comment on function ohlcv.follow_changes is
'Records the former base timeframes of symbols, and marks windows stale for which a change of the registry brings '
'other candles';
