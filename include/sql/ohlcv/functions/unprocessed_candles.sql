-- Called by include/sql/ohlcv/queries/unprocessed_candles.sql, and from psql. Candles of any symbol are stored, and
-- this list shows the errors of feeds. It steps through the pairs of symbol and timeframe by the primary key, without
-- reading the candles between them.
create or replace function ohlcv.unprocessed_candles(p_env_name text default 'DEV')
returns table (symbol text, timeframe text, first_ts timestamptz, last_ts timestamptz, reason text)
language sql
stable
set jit = off
as $$
    with recursive pair as (
        (
            select candle.symbol, candle.timeframe
            from ohlcv.candles as candle
            order by candle.symbol, candle.timeframe
            limit 1
        )
        union all
        select following.symbol, following.timeframe
        from pair
        cross join lateral (
            select candle.symbol, candle.timeframe
            from ohlcv.candles as candle
            where (candle.symbol, candle.timeframe) > (pair.symbol, pair.timeframe)
            order by candle.symbol, candle.timeframe
            limit 1
        ) as following
    ),

    judged as (
        select
            pair.symbol,
            pair.timeframe,
            case
                when asset.symbol is null and alike.symbol is not null
                    then format(
                        'The symbol is not registered; %L differs in case or blanks only. Correct the feed, then '
                        'update ohlcv.candles set symbol = %L where symbol = %L.',
                        alike.symbol, alike.symbol, pair.symbol
                    )
                when asset.symbol is null then 'The symbol is not registered. Insert it into ohlcv.assets.'
                when not (asset.active or (asset.test_active and upper(p_env_name) in ('DEV', 'TEST')))
                    then format('The asset is not active in %s. Set active in ohlcv.assets.', upper(p_env_name))
                when
                    pair.timeframe <> asset.base_timeframe
                    -- The base timeframe changed: both are in use.
                    and not exists (
                        select from ohlcv.former_base_timeframes as former where former.symbol = asset.symbol
                    )
                    then format(
                        'The base timeframe of the asset is %s. Correct the feed, or base_timeframe in ohlcv.assets.',
                        asset.base_timeframe
                    )
            end as reason
        from pair
        left join ohlcv.assets as asset on pair.symbol = asset.symbol
        left join lateral (
            select other.symbol
            from ohlcv.assets as other
            where asset.symbol is null and lower(btrim(other.symbol)) = lower(btrim(pair.symbol))
            order by other.symbol
            limit 1
        ) as alike on true
    )

    select
        judged.symbol,
        judged.timeframe,
        edge.first_ts,
        edge.last_ts,
        coalesce(
            judged.reason,
            'Dated in the future: bars are built after that time. If the date is wrong, the feed sends timestamps '
            'without an offset and its session is not in UTC (set timezone = ''UTC''), or its clock is wrong. Delete '
            'these candles.'
        )
    from judged
    cross join lateral (
        select
            min(candle.ts) as first_ts,
            max(candle.ts) as last_ts
        from ohlcv.candles as candle
        where
            candle.symbol = judged.symbol
            and candle.timeframe = judged.timeframe
            and candle.ts > case when judged.reason is null then now() else '-infinity' end
    ) as edge
    where edge.first_ts is not null
    order by edge.last_ts desc, judged.symbol, judged.timeframe
$$;

comment on function ohlcv.unprocessed_candles is
'Returns the candles that no task processes in an environment, and those dated in the future, each with the reason '
'and what to do';
