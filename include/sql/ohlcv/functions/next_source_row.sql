-- Called by ohlcv.aggregate for tasks with possibly empty windows, by include/sql/ohlcv/queries/claimed_work.sql and
-- rebuild_start.sql, by ohlcv.mark_stale and by ohlcv.follow_changes.
-- In plpgsql, so that a statement which never calls it does not plan a search through all partitions.
create or replace function ohlcv.next_source_row(p_symbol text, p_source_timeframe text, p_from timestamptz)
returns timestamptz
language plpgsql
stable
as $$
begin
    if (select frame.is_base from ohlcv.timeframes as frame where frame.timeframe = p_source_timeframe collate "C") then
        return (
            select min(candle.ts)
            from ohlcv.timeframes as frame
            cross join lateral (
                select min(row.ts) as ts
                from ohlcv.candles as row
                where row.symbol = p_symbol collate "C" and row.timeframe = frame.timeframe and row.ts >= p_from
            ) as candle
            where
                frame.timeframe = p_source_timeframe collate "C"
                or (
                    frame.is_base
                    and exists (
                        select from ohlcv.former_base_timeframes as former where former.symbol = p_symbol collate "C"
                    )
                )
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

comment on function ohlcv.next_source_row is
'Returns the time of the first candle or bar of a symbol and timeframe at or after p_from, of both base timeframes '
'if the symbol had both; null if there is none';
