-- Called by triggers on ohlcv.candles and its partitions after each statement. Runs as its owner, so that a role that
-- writes candles needs no rights on the log.
create or replace function ohlcv.log_candle_changes() returns trigger
language plpgsql
volatile
security definer
as $$
begin
    if tg_op = 'INSERT' then
        insert into ohlcv.candle_changes (symbol, timeframe, window_start)
        select distinct symbol, timeframe, ohlcv.align(ts, '15 minutes')
        from new_candles;
    elsif tg_op = 'DELETE' then
        insert into ohlcv.candle_changes (symbol, timeframe, window_start)
        select distinct symbol, timeframe, ohlcv.align(ts, '15 minutes')
        from old_candles;
    else
        insert into ohlcv.candle_changes (symbol, timeframe, window_start)
        select symbol, timeframe, ohlcv.align(ts, '15 minutes')
        from old_candles
        union
        select symbol, timeframe, ohlcv.align(ts, '15 minutes')
        from new_candles;
    end if;
    return null;
end
$$;

comment on function ohlcv.log_candle_changes is
'Trigger function: logs the 15m windows whose candles a statement wrote or deleted';
