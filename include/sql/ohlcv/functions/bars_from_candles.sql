-- Called by ohlcv.build_bars for the finest timeframe. Computes one bar for each window with candles, and writes
-- nothing. Ranges of symbols whose base timeframe changed go to ohlcv.bars_from_mixed_candles.
--
-- Open and close belong to the first and last candle of a window. A filter takes them from the candles at the edges of
-- the window without a sort. Only where a candle at an edge is missing, the primary key finds the first or last one.
--
-- Settings: the plan depends on the values of each call, so that PostgreSQL reads only the partitions of these ranges
-- and expects the right number of ranges. The planner does not know the length of a range and would sort its candles.
create or replace function ohlcv.bars_from_candles(p_size interval, p_ranges ohlcv.source_range[])
returns setof ohlcv.computed_bar
language plpgsql
stable
set work_mem = '64MB'
set jit = off
set enable_sort = off
set plan_cache_mode = force_custom_plan
as $$
declare
    reads_from timestamptz := (select min(range.starts_at) from unnest(p_ranges) as range);
    reads_until timestamptz := (select max(range.ends_at) from unnest(p_ranges) as range);
begin
    return query
    with source_range as materialized (
        select
            range.ordinality::integer as range_index,
            range.symbol collate "C" as symbol,
            range.source_timeframe collate "C" as timeframe,
            range.starts_at,
            range.ends_at,
            p_size - range.source_size as last_offset,
            (extract(epoch from p_size) / extract(epoch from range.source_size))::integer as expected_candles
        from unnest(p_ranges) with ordinality as range
        where range.fallback_timeframe is null
    )

    select
        range.range_index,
        range.symbol::text,
        bar.ts,
        coalesce(
            bar.open,
            (
                select candle.open
                from ohlcv.candles as candle
                where
                    candle.symbol = range.symbol and candle.timeframe = range.timeframe and candle.ts = bar.first_ts
                    and candle.ts >= reads_from and candle.ts < reads_until
            )
        ),
        bar.high,
        bar.low,
        coalesce(
            bar.close,
            (
                select candle.close
                from ohlcv.candles as candle
                where
                    candle.symbol = range.symbol and candle.timeframe = range.timeframe and candle.ts = bar.last_ts
                    and candle.ts >= reads_from and candle.ts < reads_until
            )
        ),
        bar.volume,
        bar.price_volume_micros * 0.000001,
        bar.trades,
        bar.candles,
        range.expected_candles,
        bar.is_valid
    from source_range as range
    -- One aggregation per range: the hash table of one symbol's windows fits in the processor's cache.
    cross join lateral (
        select
            candle.window_start as ts,
            max(candle.open) filter (where candle.ts = candle.window_start) as open,
            max(candle.close) filter (where candle.ts = candle.window_start + range.last_offset) as close,
            min(candle.ts) as first_ts,
            max(candle.ts) as last_ts,
            max(candle.high) as high,
            min(candle.low) as low,
            sum(candle.volume) as volume,
            sum(candle.price_volume_micros) as price_volume_micros,
            sum(candle.trades)::bigint as trades,
            count(*)::integer as candles,
            bool_and(candle.is_valid) as is_valid
        from (
            select *, ohlcv.align(row.ts, p_size) as window_start
            from ohlcv.checked_candles as row
            where
                row.symbol = range.symbol
                and row.timeframe = range.timeframe
                and row.ts >= range.starts_at
                and row.ts < range.ends_at
                -- Constants of the plan, which exclude the other partitions.
                and row.ts >= reads_from
                and row.ts < reads_until
            offset 0
        ) as candle
        group by candle.window_start
    ) as bar;
    if exists (select from unnest(p_ranges) as range where range.fallback_timeframe is not null) then
        return query select * from ohlcv.bars_from_mixed_candles(p_size, p_ranges);
    end if;
end
$$;

comment on function ohlcv.bars_from_candles is
'Computes the bars of the given window size from the candles of the ranges; returns one row for each window with '
'candles, and writes nothing';
