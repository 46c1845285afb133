-- Called by the functions that add and drop partitions, and by ohlcv.build_bars.
create or replace function ohlcv.candle_partitions()
returns table (partition_name text, starts_at timestamptz, ends_at timestamptz)
language sql
stable
set search_path = ''
set datestyle = 'ISO, MDY'
set timezone = 'UTC'
as $$
    select
        class.relname,
        month.starts_at at time zone 'UTC',
        (month.starts_at + interval '1 month') at time zone 'UTC'
    from pg_inherits
    -- Without a join, for which the planner may read all of pg_class.
    cross join lateral (select split_part(pg_inherits.inhrelid::regclass::text, '.', 2) as relname) as class
    cross join lateral (
        select make_date(left(right(class.relname, 6), 4)::integer, right(class.relname, 2)::integer, 1)::timestamp
    ) as month (starts_at)
    where pg_inherits.inhparent = 'ohlcv.candles'::regclass and class.relname ~ '^candles_[0-9]{6}$'
    order by class.relname
$$;

comment on function ohlcv.candle_partitions() is 'The months of which candles can be stored, the oldest first';
revoke all on function ohlcv.candle_partitions() from public;
