-- Called from psql, to see where a task starts. ohlcv.catchup_aggregation_range applies the same rule to a task without
-- a cursor.
create or replace function ohlcv.agg_bootstrap_cursor(p_symbol text, p_timeframe text) returns timestamptz
language sql
stable
as $$
    select ohlcv.align(coalesce(task.cursor, task.starts_at, oldest.ts), task.size)
    from ohlcv.tasks as task
    cross join lateral ohlcv.next_source_row(task.symbol, task.source_timeframe, '-infinity') as oldest (ts)
    where task.symbol = p_symbol collate "C" and task.timeframe = p_timeframe collate "C"
$$;

comment on function ohlcv.agg_bootstrap_cursor is
'Returns where a task continues: its cursor, otherwise its start, otherwise its first source row, rounded down to a '
'window; null without any';
