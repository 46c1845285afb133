-- Called by ohlcv.aggregate, for one symbol as for thousands: the one place where bars are computed and written.
--
-- A window's open and close are those of its first and last source row. Where these stand at the window's edges, as
-- they nearly always do, a filter finds them without a sort; only else they are looked up. Bars that are stored already
-- with equal values are dropped before the insert, so that a replay writes nothing.
--
-- A cast of double precision to numeric prints and parses its 15 digits, which takes longer than all the rest of a
-- candle. With at most six decimals, a whole number of millionths is the same number: candles are summed in millionths.
--
-- Where a symbol's base timeframe was changed, each 5 minutes are taken from the timeframe of the range if it has
-- candles there, else from the other one. Candles are counted in the finest timeframe of their window, of which a bar's
-- expected_candles tell: a bar of 15 of them is made of 1m, one of 3 of 5m.
--
-- Values that make no bar stop their symbol, from the window on in which they are. Nothing else is decided here.
create or replace function ohlcv.build_bars(
    p_timeframe text, p_ranges ohlcv.source_range[], p_derivation_version integer
)
returns table (
    symbol text,
    new_bars integer,
    poor_bars integer,
    inserted integer,
    updated integer,
    unchanged integer,
    deleted integer,
    newest_new_bar timestamptz,
    bad_window timestamptz
)
language plpgsql
volatile
set search_path = ''
set datestyle = 'ISO, MDY'
set timezone = 'UTC'
set work_mem = '64MB'
set jit = off
set enable_sort = off
as $$
declare
    frame ohlcv.timeframes;
    coarser ohlcv.timeframes;
    source text;
    other_ranges text := '';
    candles text := 'sum(source.candles)::integer';
    expected_candles text := 'range.expected_candles';
    price_unit numeric := 1;
    first_moment timestamptz;
    last_moment timestamptz;
    oldest_candle timestamptz := '-infinity';
begin
    select * into strict frame from ohlcv.timeframes where timeframe = p_timeframe and not is_base;
    select * into coarser from ohlcv.timeframes where source_timeframe = p_timeframe;
    select min(starts_at), max(ends_at) into first_moment, last_moment from unnest(p_ranges);
    if frame.source_timeframe is null then
        source := '(
            select
                symbol, timeframe, ts, open, high, low, close, volume,
                case
                    when
                        high + low + close between 0.001 and 1e9
                        and abs((high + low + close) * 1e6 - ((high + low + close) * 1e6)::bigint)
                        < (high + low + close) * 4e-10
                        then ((high + low + close) * 1e6)::bigint::numeric
                    else (high + low + close)::numeric * 1000000
                end * volume as price_volume,
                trades, 1 as candles,
                (
                    low > 0 and low <= open and low <= close and open <= high and close <= high
                    and high < ''Infinity'' and volume >= 0 and volume < ''Infinity'' and coalesce(trades, 0) >= 0
                ) is true as is_valid
            from ohlcv.candles
        )';
        price_unit := 0.000001;
        -- Candles that retention has dropped say nothing about their bars.
        select coalesce(min(starts_at), '-infinity') into oldest_candle from ohlcv.candle_partitions();
        if exists (select from unnest(p_ranges) as range where range.fallback_timeframe is not null) then
            other_ranges := format($statement$
                where range.fallback_timeframe is null
                union all
                select range.symbol, range.source_timeframe, range.cursor, range.built_until, range.has_bars, grouped.*
                from source_range as range
                cross join lateral (
                    select
                        source.window_start as ts,
                        (array_agg(source.open order by source.ts))[1] as open,
                        (array_agg(source.close order by source.ts desc))[1] as close,
                        min(source.ts) as first_ts,
                        max(source.ts) as last_ts,
                        max(source.high) as high,
                        min(source.low) as low,
                        sum(source.volume) as volume,
                        sum(source.price_volume) * $8 as price_volume,
                        sum(source.trades)::bigint as trades,
                        (sum(source.minutes) / min(source.minutes))::integer as candles,
                        (%2$s / min(source.minutes))::integer as expected_candles,
                        bool_and(source.is_valid) as is_valid
                    from (
                        select
                            row.*,
                            date_bin($2, row.ts, timestamptz '2000-01-01 00:00+00') as window_start,
                            (extract(epoch from own.size) / 60)::integer as minutes,
                            row.timeframe = range.source_timeframe as is_preferred,
                            bool_or(row.timeframe = range.source_timeframe) over (
                                partition by date_bin('5 minutes', row.ts, timestamptz '2000-01-01 00:00+00')
                            ) as has_preferred
                        from %1$s as row
                        join ohlcv.timeframes as own on row.timeframe = own.timeframe
                        where
                            row.symbol = range.symbol
                            and row.timeframe in (range.source_timeframe, range.fallback_timeframe)
                            and row.ts >= range.starts_at
                            and row.ts < range.ends_at
                            and row.ts >= $9
                            and row.ts < $10
                    ) as source
                    where source.is_preferred or not source.has_preferred
                    group by source.window_start
                ) as grouped
                where range.fallback_timeframe is not null
                $statement$,
                source, extract(epoch from frame.size)::integer / 60
            );
        end if;
    else
        source := format(
            '(select *, true as is_valid, greatest(%s / expected_candles, 1) as unit from ohlcv.bars)',
            (select extract(epoch from size)::integer / 60 from ohlcv.timeframes where timeframe = frame.source_timeframe)
        );
        candles := '(sum(source.candles * source.unit) / min(source.unit))::integer';
        expected_candles := format('(%s / min(source.unit))::integer', extract(epoch from frame.size)::integer / 60);
    end if;

    return query execute format(
        $statement$
        with source_range as materialized (
            select
                range.symbol collate "C" as symbol,
                range.source_timeframe collate "C" as source_timeframe,
                $2 - range.source_size as last_offset,
                range.starts_at,
                range.ends_at,
                range.is_stale,
                range.empties,
                range.cursor,
                range.built_until,
                range.fallback_timeframe collate "C" as fallback_timeframe,
                (extract(epoch from $2) / extract(epoch from range.source_size))::integer as expected_candles,
                -- One look for a range, so that there need be none for each of its bars.
                exists(
                    select
                    from ohlcv.bars as old
                    where
                        old.symbol = range.symbol collate "C"
                        and old.timeframe = $3
                        and old.ts >= range.starts_at
                        and old.ts < range.ends_at
                ) as has_bars
            from unnest($1) as range
        ),
        -- Grouped range by range: the hash of one symbol's windows stays in the processor's cache. How long a range is,
        -- the planner cannot know, and would sort its candles: hence enable_sort = off.
        built as materialized (
            select
                range.symbol,
                range.source_timeframe,
                range.cursor,
                range.built_until,
                range.has_bars,
                grouped.*
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
                    sum(source.price_volume) * $8 as price_volume,
                    sum(source.trades)::bigint as trades,
                    %2$s as candles,
                    %3$s as expected_candles,
                    bool_and(source.is_valid) as is_valid
                from (
                    select *, date_bin($2, row.ts, timestamptz '2000-01-01 00:00+00') as window_start
                    from %1$s as row
                    where
                        row.symbol = range.symbol
                        and row.timeframe = range.source_timeframe
                        and row.ts >= range.starts_at
                        and row.ts < range.ends_at
                        -- Known when the statement is planned, so that other partitions are left out of it.
                        and row.ts >= $9
                        and row.ts < $10
                    offset 0
                ) as source
                group by source.window_start
            ) as grouped
            %4$s
        ),
        first_bad as (
            select built.symbol, min(built.ts) as ts from built where not built.is_valid group by built.symbol
        ),
        bar as materialized (
            select
                built.symbol,
                built.has_bars,
                built.ts,
                coalesce(
                    built.open,
                    (
                        select row.open from %1$s as row
                        where row.symbol = built.symbol and row.timeframe = built.source_timeframe
                            and row.ts = built.first_ts and row.ts >= $9 and row.ts < $10
                    )
                ) as open,
                built.high,
                built.low,
                coalesce(
                    built.close,
                    (
                        select row.close from %1$s as row
                        where row.symbol = built.symbol and row.timeframe = built.source_timeframe
                            and row.ts = built.last_ts and row.ts >= $9 and row.ts < $10
                    )
                ) as close,
                built.volume,
                built.price_volume,
                built.trades,
                built.candles,
                built.expected_candles,
                coalesce(built.ts < built.cursor, false) as was_built,
                -- A coarser bar may have been made without this one.
                coalesce(built.ts < built.built_until, false) as was_passed
            from built
            left join first_bad on built.symbol = first_bad.symbol
            where first_bad.ts is null or built.ts < first_bad.ts
        ),
        compared as materialized (
            select
                bar.*,
                stored.is_stored is true as is_stored,
                coalesce(stored.is_equal, false) as is_equal
            from bar
            left join lateral (
                select
                    true as is_stored,
                    (
                        old.open, old.high, old.low, old.close, old.volume, old.price_volume, old.trades,
                        old.candles, old.expected_candles, old.derivation_version
                    ) is not distinct from (
                        bar.open, bar.high, bar.low, bar.close, bar.volume, bar.price_volume, bar.trades,
                        bar.candles, bar.expected_candles, $4
                    ) as is_equal
                from ohlcv.bars as old
                where bar.has_bars and old.symbol = bar.symbol and old.timeframe = $3 and old.ts = bar.ts
                offset 0
            ) as stored on true
        ),
        -- Without "on conflict", which looks for one in every row: whoever builds a task has locked it.
        added as (
            insert into ohlcv.bars (
                symbol, timeframe, ts, open, high, low, close, volume, price_volume, trades, candles,
                expected_candles, derivation_version
            )
            select
                symbol, $3, ts, open, high, low, close, volume, price_volume, trades, candles, expected_candles, $4
            from compared
            where not is_stored
            order by symbol, ts
        ),
        -- Not an update, which joins, and may look through all bars; nor does this miss one that is just being changed.
        corrected as (
            insert into ohlcv.bars (
                symbol, timeframe, ts, open, high, low, close, volume, price_volume, trades, candles,
                expected_candles, derivation_version
            )
            select
                symbol, $3, ts, open, high, low, close, volume, price_volume, trades, candles, expected_candles, $4
            from compared
            where is_stored and not is_equal
            order by symbol, ts
            on conflict (symbol, timeframe, ts) do update
                set
                    open = excluded.open,
                    high = excluded.high,
                    low = excluded.low,
                    close = excluded.close,
                    volume = excluded.volume,
                    price_volume = excluded.price_volume,
                    trades = excluded.trades,
                    candles = excluded.candles,
                    expected_candles = excluded.expected_candles,
                    derivation_version = excluded.derivation_version
        ),
        -- From the ranges to their bars: a join may as well look through all bars of the timeframe.
        without_source as materialized (
            select range.symbol, stored.ts
            from source_range as range
            cross join lateral (
                select old.ts
                from ohlcv.bars as old
                where
                    old.symbol = range.symbol
                    and old.timeframe = $3
                    and old.ts >= greatest(range.starts_at, $5)
                    and old.ts < range.ends_at
                offset 0
            ) as stored
            left join first_bad on range.symbol = first_bad.symbol
            where
                range.empties
                and (first_bad.ts is null or stored.ts < first_bad.ts)
                -- Hashed, however few bars the planner expects: with "not exists" it compares each with each.
                and (range.symbol, stored.ts) not in (select built.symbol, built.ts from built)
        ),
        emptied as (
            delete from ohlcv.bars as bar
            using without_source
            where bar.symbol = without_source.symbol and bar.timeframe = $3 and bar.ts = without_source.ts
            returning bar.symbol, bar.ts
        ),
        passed_on as (
            insert into ohlcv.stale_windows (symbol, timeframe, window_start, ends_at)
            select changed.symbol, $6, changed.window_start, changed.window_start + $7
            from (
                select symbol, date_bin($7, ts, timestamptz '2000-01-01 00:00+00') as window_start
                from compared
                where was_passed and not is_equal
                union
                select symbol, date_bin($7, ts, timestamptz '2000-01-01 00:00+00')
                from emptied
            ) as changed
            where $6 is not null
        ),
        put_back as (
            insert into ohlcv.stale_windows (symbol, timeframe, window_start, ends_at, empties)
            select range.symbol, $3, greatest(range.starts_at, first_bad.ts), range.ends_at, range.empties
            from source_range as range
            inner join first_bad on range.symbol = first_bad.symbol
            where range.is_stale and first_bad.ts < range.ends_at
        ),
        counted as (
            select
                symbol,
                (count(*) filter (where not was_built))::integer as new_bars,
                (count(*) filter (where 5 * candles < 4 * expected_candles))::integer as poor_bars,
                (count(*) filter (where not is_stored))::integer as inserted,
                (count(*) filter (where is_stored and not is_equal))::integer as updated,
                (count(*) filter (where is_equal))::integer as unchanged,
                max(ts) filter (where not was_built) as newest_new_bar
            from compared
            group by symbol
        ),
        emptied_counted as (
            select symbol, count(*)::integer as deleted from emptied group by symbol
        )
        select
            touched.symbol,
            coalesce(counted.new_bars, 0),
            coalesce(counted.poor_bars, 0),
            coalesce(counted.inserted, 0),
            coalesce(counted.updated, 0),
            coalesce(counted.unchanged, 0),
            coalesce(emptied_counted.deleted, 0),
            counted.newest_new_bar,
            first_bad.ts
        from (select distinct symbol from source_range) as touched
        left join counted on touched.symbol = counted.symbol
        left join emptied_counted on touched.symbol = emptied_counted.symbol
        left join first_bad on touched.symbol = first_bad.symbol
        $statement$,
        source, candles, expected_candles, other_ranges
    )
    using
        p_ranges, frame.size, p_timeframe, p_derivation_version, oldest_candle, coarser.timeframe, coarser.size,
        price_unit, first_moment, last_moment;
end
$$;

comment on function ohlcv.build_bars(text, ohlcv.source_range[], integer) is
'Builds bars of one timeframe for ranges of symbols; returns what became of them, each symbol''s newest new bar and '
'first bad window';
revoke all on function ohlcv.build_bars(text, ohlcv.source_range[], integer) from public;
