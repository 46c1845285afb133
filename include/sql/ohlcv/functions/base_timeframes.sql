-- Called by ohlcv.aggregate for symbols whose base timeframe changed.
create or replace function ohlcv.base_timeframes(p_symbol text, p_base_timeframe text)
returns table (
    timeframe text, size interval, starts_at timestamptz, ends_at timestamptz, fallback_timeframe text
)
language sql
stable
as $$
    select in_use.timeframe, own.size, in_use.starts_at, in_use.ends_at, other.timeframe
    from (
        select former.timeframe, former.starts_at, former.ends_at
        from ohlcv.former_base_timeframes as former
        where former.symbol = p_symbol collate "C"
        union all
        select p_base_timeframe collate "C", max(former.ends_at), 'infinity'
        from ohlcv.former_base_timeframes as former
        where former.symbol = p_symbol collate "C"
        having count(*) > 0
    ) as in_use
    inner join ohlcv.timeframes as own on in_use.timeframe = own.timeframe
    inner join ohlcv.timeframes as other on other.is_base and in_use.timeframe <> other.timeframe
$$;

comment on function ohlcv.base_timeframes is
'Returns the base timeframes of a symbol, each with its period of use and the other one as fallback for missing '
'candles; no rows if the base timeframe never changed';
