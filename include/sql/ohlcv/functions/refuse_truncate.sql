-- Called by triggers on ohlcv.candles and its partitions before TRUNCATE, which would delete candles without a log
-- entry, so that their bars would stay.
create or replace function ohlcv.refuse_truncate() returns trigger
language plpgsql
volatile
as $$
begin
    raise exception 'Candles are not truncated: their bars would stay. Nothing was deleted. Use DELETE, which updates '
        'the bars, or ohlcv.drop_candle_partitions(before), which drops old months and keeps their bars.'
        using errcode = 'feature_not_supported';
end
$$;

comment on function ohlcv.refuse_truncate is 'Trigger function: refuses TRUNCATE of candles, with instructions';
