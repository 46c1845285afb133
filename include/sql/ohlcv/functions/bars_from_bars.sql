-- Called by ohlcv.build_bars for every timeframe but the finest. Computes one bar for each window with bars of the next
-- finer timeframe, and writes nothing. See ohlcv.bars_from_candles for the edges of a window and for the settings.
--
-- A bar's expected_candles shows the base timeframe that it was computed from: a bar of 15m with 15 of them has 1m
-- candles, one with 3 has 5m candles. Candles are counted in the finest base timeframe of their window.
create or replace function ohlcv.bars_from_bars(p_size interval, p_ranges ohlcv.source_range[])
returns setof ohlcv.computed_bar
language plpgsql
stable
set work_mem = '64MB'
set jit = off
set enable_sort = off
set plan_cache_mode = force_custom_plan
as $$
declare
    window_minutes integer := extract(epoch from p_size) / 60;
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
            (extract(epoch from range.source_size) / 60)::integer as source_minutes
        from unnest(p_ranges) with ordinality as range
    )

    select
        range.range_index,
        range.symbol::text,
        bar.ts,
        coalesce(
            bar.open,
            (
                select source.open
                from ohlcv.bars as source
                where
                    source.symbol = range.symbol and source.timeframe = range.timeframe and source.ts = bar.first_ts
            )
        ),
        bar.high,
        bar.low,
        coalesce(
            bar.close,
            (
                select source.close
                from ohlcv.bars as source
                where source.symbol = range.symbol and source.timeframe = range.timeframe and source.ts = bar.last_ts
            )
        ),
        bar.volume,
        bar.price_volume,
        bar.trades,
        bar.candles,
        bar.expected_candles,
        true
    from source_range as range
    cross join lateral (
        select
            source.window_start as ts,
            max(source.open) filter (where source.ts = source.window_start) as open,
            max(source.close) filter (where source.ts = source.window_start + range.last_offset) as close,
            min(source.ts) as first_ts,
            max(source.ts) as last_ts,
            max(source.high) as high,
            min(source.low) as low,
            sum(source.volume) as volume,
            sum(source.price_volume) as price_volume,
            sum(source.trades)::bigint as trades,
            (sum(source.candles * source.base_minutes) / min(source.base_minutes))::integer as candles,
            (window_minutes / min(source.base_minutes))::integer as expected_candles
        from (
            select
                *,
                ohlcv.align(row.ts, p_size) as window_start,
                greatest(range.source_minutes / row.expected_candles, 1) as base_minutes
            from ohlcv.bars as row
            where
                row.symbol = range.symbol
                and row.timeframe = range.timeframe
                and row.ts >= range.starts_at
                and row.ts < range.ends_at
            offset 0
        ) as source
        group by source.window_start
    ) as bar;
end
$$;

comment on function ohlcv.bars_from_bars is
'Computes the bars of the given window size from finer bars of the ranges; returns one row for each window with source '
'bars, and writes nothing';
