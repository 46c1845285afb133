-- Called by ohlcv.aggregate, for tasks whose windows may be empty, and by include/sql/ohlcv/claimed_work.sql for those
-- that were never built. In plpgsql: a statement without such tasks does not plan a search through all partitions.
create or replace function ohlcv.next_source_row(p_symbol text, p_source_timeframe text, p_from timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = ''
set datestyle = 'ISO, MDY'
set timezone = 'UTC'
as $$
begin
    if (select frame.is_base from ohlcv.timeframes as frame where frame.timeframe = p_source_timeframe collate "C") then
        return (
            select min(candle.ts)
            from ohlcv.candles as candle
            where
                candle.symbol = p_symbol collate "C"
                and candle.timeframe = p_source_timeframe collate "C"
                and candle.ts >= p_from
        );
    end if;
    return (
        select min(bar.ts)
        from ohlcv.bars as bar
        where
            bar.symbol = p_symbol collate "C"
            and bar.timeframe = p_source_timeframe collate "C"
            and bar.ts >= p_from
    );
end
$$;

comment on function ohlcv.next_source_row(text, text, timestamptz) is
'When the first candle or bar of a symbol and timeframe at or after a moment starts; null if there is none';
revoke all on function ohlcv.next_source_row(text, text, timestamptz) from public;
