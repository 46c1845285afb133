-- Called by ohlcv.add_candle_partitions, ohlcv.drop_candle_partitions, ohlcv.mark_changed and ohlcv.build_bars.
create or replace function ohlcv.candle_partitions()
returns table (partition_name text, starts_at timestamptz, ends_at timestamptz)
language sql
stable
as $$
    select
        class.relname,
        month.starts_at at time zone 'UTC',
        (month.starts_at + interval '1 month') at time zone 'UTC'
    from pg_inherits
    -- Not a join with pg_class: the planner may read all of it.
    cross join lateral (select split_part(pg_inherits.inhrelid::regclass::text, '.', 2) as relname) as class
    cross join lateral (
        select make_date(left(right(class.relname, 6), 4)::integer, right(class.relname, 2)::integer, 1)::timestamp
    ) as month (starts_at)
    where pg_inherits.inhparent = 'ohlcv.candles'::regclass and class.relname ~ '^candles_[0-9]{6}$'
    order by class.relname
$$;

comment on function ohlcv.candle_partitions is
'Returns the monthly partitions of ohlcv.candles with their bounds, the oldest first';
