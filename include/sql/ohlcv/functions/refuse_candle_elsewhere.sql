-- Called by a trigger on the default partition of ohlcv.candles. The error names the likely cause, judged by the date.
create or replace function ohlcv.refuse_candle_elsewhere() returns trigger
language plpgsql
volatile
as $$
begin
    raise exception 'There is no partition for a candle of %: %. Nothing was stored.',
        case
            when isfinite(new.ts) then to_char(new.ts at time zone 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC'
            else new.ts::text
        end,
        case
            when not isfinite(new.ts) then 'it is not a date. Send the start of the candle'
            when new.ts > now() + interval '100 years'
                then 'milliseconds were read as seconds. Divide them by 1000: to_timestamp(milliseconds / 1000.0)'
            when new.ts < timestamptz '1971-01-01 00:00+00'
                then 'seconds were read as milliseconds. Do not divide them: to_timestamp(seconds)'
            when new.ts > now()
                then 'it is in the future, after the last partition. Check the clock of the feed, and how it reads '
                    'dates. To store it: select ohlcv.add_candle_partitions(from, to)'
            else 'it is older than the retention, or its partition is missing. '
                'To store it: select ohlcv.add_candle_partitions(from, to)'
        end
        using errcode = 'check_violation', schema = 'ohlcv', table = 'candles';
end
$$;

comment on function ohlcv.refuse_candle_elsewhere is 'Trigger function: refuses candles of months without a partition';
