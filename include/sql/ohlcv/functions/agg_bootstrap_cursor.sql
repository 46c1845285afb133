-- Called from psql, to see where a task starts. ohlcv.catchup_aggregation_range applies the same rule to a task without
-- a cursor.
create or replace function ohlcv.agg_bootstrap_cursor(p_symbol text, p_timeframe text) returns timestamptz
language sql
stable
set search_path = ''
set datestyle = 'ISO, MDY'
set timezone = 'UTC'
as $$
    select date_bin(
        task.size, coalesce(task.cursor, task.starts_at, oldest.ts), timestamptz '2000-01-01 00:00+00'
    )
    from ohlcv.tasks as task
    cross join lateral (
        select least(
            (
                select min(candle.ts) from ohlcv.candles as candle
                where candle.symbol = task.symbol and candle.timeframe = task.source_timeframe
            ),
            (
                select min(bar.ts) from ohlcv.bars as bar
                where bar.symbol = task.symbol and bar.timeframe = task.source_timeframe
            )
        ) as ts
    ) as oldest
    where task.symbol = p_symbol collate "C" and task.timeframe = p_timeframe collate "C"
$$;

comment on function ohlcv.agg_bootstrap_cursor(text, text) is
'Returns where a task continues: its cursor, otherwise its start, otherwise its first source row, rounded down to a '
'window; null without any';
revoke all on function ohlcv.agg_bootstrap_cursor(text, text) from public;
