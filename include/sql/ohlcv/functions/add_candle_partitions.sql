-- Called by every run for the months ahead, and by a person before old candles are imported. A partition is made aside
-- and attached: creating it in place would make ingest wait. Its triggers are created last: PostgreSQL 16.2 attaches no
-- table that has a statement trigger with a transition table.
create or replace function ohlcv.add_candle_partitions(p_from timestamptz, p_to timestamptz) returns integer
language plpgsql
volatile
set search_path = ''
set datestyle = 'ISO, MDY'
set timezone = 'UTC'
as $$
declare
    first_month timestamp;
    month timestamp;
    name text;
    added integer := 0;
begin
    if (
        least(p_from, p_to) >= timestamptz '1900-01-01 00:00+00'
        and greatest(p_from, p_to) < timestamptz '2200-01-01 00:00+00'
    ) is not true then
        raise exception 'There are no candles from % to %: both have to be from 1900 to 2199. No partition was added. '
            'Check the dates.', p_from, p_to
            using errcode = 'invalid_parameter_value';
    end if;
    first_month := date_trunc('month', p_from at time zone 'UTC');
    -- Each partition holds locks in the server's shared memory until the transaction ends.
    if p_to at time zone 'UTC' >= first_month + interval '600 months' then
        raise exception 'From % to % are more than 600 months. No partition was added. Add them in several '
            'transactions of up to 50 years.', p_from, p_to
            using errcode = 'invalid_parameter_value';
    end if;
    perform pg_advisory_xact_lock(hashtext('ohlcv.candle_partitions'));
    for month in
        select generate_series(first_month, p_to at time zone 'UTC', interval '1 month')
    loop
        name := 'candles_' || to_char(month, 'YYYYMM');
        continue when to_regclass('ohlcv.' || name) is not null;
        execute format('create table ohlcv.%I (like ohlcv.candles including all)', name);
        execute format(
            'alter table ohlcv.candles attach partition ohlcv.%I for values from (%L) to (%L)',
            name,
            to_char(month, 'YYYY-MM-DD') || ' 00:00:00+00',
            to_char(month + interval '1 month', 'YYYY-MM-DD') || ' 00:00:00+00'
        );
        perform ohlcv.watch_candles(('ohlcv.' || name)::regclass);
        added := added + 1;
    end loop;
    return added;
end
$$;

comment on function ohlcv.add_candle_partitions(timestamptz, timestamptz) is
'Makes the partitions of the UTC months from one moment to another where they are missing; returns how many';
revoke all on function ohlcv.add_candle_partitions(timestamptz, timestamptz) from public;
