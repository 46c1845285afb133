-- Called by ohlcv.bars_from_candles for symbols whose base timeframe changed: ranges with a fallback timeframe.
-- Each 5 minutes come from the source timeframe of the range if it has candles there, otherwise from the fallback.
--
-- Candles are counted in the finest timeframe of their window. A bar of 15m that has 1m candles expects 15 of them, and
-- each of its 5m candles counts as five.
create or replace function ohlcv.bars_from_mixed_candles(p_size interval, p_ranges ohlcv.source_range[])
returns setof ohlcv.computed_bar
language plpgsql
stable
set work_mem = '64MB'
set jit = off
-- As in ohlcv.bars_from_candles.
set plan_cache_mode = force_custom_plan
as $$
declare
    reads_from timestamptz := (select min(range.starts_at) from unnest(p_ranges) as range);
    reads_until timestamptz := (select max(range.ends_at) from unnest(p_ranges) as range);
    window_minutes integer := extract(epoch from p_size) / 60;
begin
    return query
    select
        range.ordinality::integer,
        range.symbol,
        bar.*
    from unnest(p_ranges) with ordinality as range
    cross join lateral (
        select
            candle.window_start,
            (array_agg(candle.open order by candle.ts))[1],
            max(candle.high),
            min(candle.low),
            (array_agg(candle.close order by candle.ts desc))[1],
            sum(candle.volume),
            sum(candle.price_volume_micros) * 0.000001,
            sum(candle.trades)::bigint,
            (sum(candle.minutes) / min(candle.minutes))::integer,
            (window_minutes / min(candle.minutes))::integer,
            bool_and(candle.is_valid)
        from (
            select
                row.*,
                ohlcv.align(row.ts, p_size) as window_start,
                (extract(epoch from own.size) / 60)::integer as minutes,
                row.timeframe = range.source_timeframe as is_preferred,
                bool_or(row.timeframe = range.source_timeframe) over (partition by ohlcv.align(row.ts, '5 minutes'))
                    as has_preferred
            from ohlcv.checked_candles as row
            inner join ohlcv.timeframes as own on row.timeframe = own.timeframe
            where
                row.symbol = range.symbol collate "C"
                and row.timeframe in (range.source_timeframe, range.fallback_timeframe)
                and row.ts >= range.starts_at
                and row.ts < range.ends_at
                and row.ts >= reads_from
                and row.ts < reads_until
        ) as candle
        where candle.is_preferred or not candle.has_preferred
        group by candle.window_start
    ) as bar
    where range.fallback_timeframe is not null;
end
$$;

comment on function ohlcv.bars_from_mixed_candles is
'Computes bars like ohlcv.bars_from_candles for the ranges with a fallback timeframe, from candles of both timeframes';
