-- Called by every run for the current month and the months ahead, and from psql before old candles are imported.
-- Creates the missing monthly partitions of ohlcv.candles and returns their number.
--
-- Each partition is created as a table and then attached, because "create table ... partition of" would block ingest.
-- Attaching locks the default partition, which queries on all partitions read, too. If another session holds a lock for
-- 2 seconds, the function gives up: every query after it would have to wait as long.
-- Triggers are created last: PostgreSQL 16.2 attaches no table whose statement triggers have transition tables.
create or replace function ohlcv.add_candle_partitions(p_from timestamptz, p_to timestamptz) returns integer
language plpgsql
volatile
set lock_timeout = '2s'
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
        raise exception 'Partitions from % to % cannot be added: both times must be from 1900 to 2199. No partition '
            'was added. Correct the times.', p_from, p_to
            using errcode = 'invalid_parameter_value';
    end if;
    first_month := date_trunc('month', p_from at time zone 'UTC');
    -- Each partition holds locks in the server's shared memory until the transaction ends.
    if p_to at time zone 'UTC' >= first_month + interval '600 months' then
        raise exception 'The range from % to % has more than 600 months. No partition was added. Add them in several '
            'transactions of at most 50 years.', p_from, p_to
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
exception when lock_not_available then
    raise exception 'The partitions from % to % were not added: for 2 seconds, another session held a lock on the '
        'table of candles, or added partitions itself. No partition was added. Try again. If it fails again, end the '
        'transaction that reads ohlcv.candles_elsewhere.', p_from, p_to
        using errcode = 'lock_not_available';
end
$$;

comment on function ohlcv.add_candle_partitions is
'Adds the missing partitions for the UTC months from p_from to p_to; returns their number';
