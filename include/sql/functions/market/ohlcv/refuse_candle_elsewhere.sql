-- Called by a trigger on the default partition of ohlcv.candles.
create or replace function ohlcv.refuse_candle_elsewhere() returns trigger
language plpgsql
volatile
set search_path = ''
set datestyle = 'ISO, MDY'
set timezone = 'UTC'
as $$
begin
    raise exception 'There is no partition for a candle of %: it is older than the retention, or its month was not '
        'made yet. Nothing was stored. To keep it: select ohlcv.add_candle_partitions(from, to).', new.ts
        using errcode = 'check_violation', schema = 'ohlcv', table = 'candles';
end
$$;

comment on function ohlcv.refuse_candle_elsewhere() is 'Refuses candles of months that have no partition';
revoke all on function ohlcv.refuse_candle_elsewhere() from public;
