-- Called by every run for the months ahead, and by a person before old candles are imported. A partition is made aside
-- and attached: creating it in place would make ingest wait.
create or replace function ohlcv.add_candle_partitions(p_from timestamptz, p_to timestamptz) returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
    month timestamp;
    name text;
    added integer := 0;
begin
    perform pg_advisory_xact_lock(hashtext('ohlcv.candle_partitions'));
    for month in
        select generate_series(
            date_trunc('month', p_from at time zone 'UTC'), p_to at time zone 'UTC', interval '1 month'
        )
    loop
        name := 'candles_' || to_char(month, 'YYYYMM');
        continue when to_regclass('ohlcv.' || name) is not null;
        execute format('create table ohlcv.%I (like ohlcv.candles including all)', name);
        perform ohlcv.watch_candles(('ohlcv.' || name)::regclass);
        execute format(
            'alter table ohlcv.candles attach partition ohlcv.%I for values from (%L) to (%L)',
            name, month at time zone 'UTC', (month + interval '1 month') at time zone 'UTC'
        );
        added := added + 1;
    end loop;
    return added;
end
$$;

comment on function ohlcv.add_candle_partitions(timestamptz, timestamptz) is
'Makes the partitions of the UTC months from one moment to another where they are missing; returns how many';
revoke all on function ohlcv.add_candle_partitions(timestamptz, timestamptz) from public;
